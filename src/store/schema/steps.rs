//! Pure: the statements of `sql/schema.sql`, each with the names of what it brings.

use crate::store::schema::SCHEMA;

/// Begins the line that says what the statement below it brings.
const STEP: &str = "\n-- step: ";

/// One statement of the schema, or a few that belong together.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Names of what it makes, in the words of the inventory.
    pub(super) brings: Vec<String>,
    pub(super) sql: &'static str,
}

impl Step {
    /// The name of the index that this step builds.
    pub(super) fn index(&self) -> Option<&str> {
        self.brings.first()?.strip_prefix("index ")
    }

    /// Name and body of the function that this step makes.
    pub(super) fn function(&self) -> Option<(&str, &'static str)> {
        let name = self.brings.first()?.strip_prefix("function ")?;
        Some((name, self.sql.split("$$").nth(1)?))
    }
}

/// Reads all of them, in their order.
pub(super) fn steps() -> Vec<Step> {
    SCHEMA
        .split(STEP)
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
        .filter(|(brings, _)| *brings != "none")
        .map(|(brings, sql)| Step {
            brings: names(brings),
            sql: without_trailing_comment(sql),
        })
        .collect()
}

/// Spells out the names in a step's line: `columns outbox_event (headers)` is `column
/// outbox_event.headers`.
fn names(line: &str) -> Vec<String> {
    let Some((head, list)) = line.trim_end_matches(')').split_once(" (") else {
        return vec![line.to_owned()];
    };
    let (kind, table) = head.split_once(' ').unwrap_or((head, ""));
    let (whole, part) = match kind {
        "settings" => (None, "setting"),
        "columns" => (None, "column"),
        _ => (Some(head.to_owned()), "column"),
    };
    let parts = list
        .split(", ")
        .map(|name| format!("{part} {table}.{name}"));
    whole.into_iter().chain(parts).collect()
}

/// Cuts off what stands above the next step.
fn without_trailing_comment(sql: &str) -> &str {
    let mut sql = sql.trim_end();
    while let Some((before, line)) = sql.rsplit_once('\n')
        && (line.is_empty() || line.starts_with("--"))
    {
        sql = before;
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_fits_every_encoding_of_a_database() {
        // Comments, too: the server converts a whole statement before it reads it.
        assert!(SCHEMA.is_ascii());
    }

    #[test]
    fn every_statement_of_the_schema_belongs_to_a_step_with_names() {
        let steps = steps();

        let kinds = ["table", "column", "setting", "index", "trigger", "function"];
        for name in steps.iter().flat_map(|step| &step.brings) {
            let kind = name.split(' ').next().unwrap_or_default();
            assert!(
                kinds.contains(&kind) && name.split(' ').count() == 2,
                "`{name}`"
            );
        }
        let creates = |what: &str| SCHEMA.matches(&format!("create {what}")).count();
        let brings = |kind: &str| {
            steps
                .iter()
                .filter(|step| step.brings[0].starts_with(kind))
                .count()
        };
        assert_eq!(brings("table"), creates("table"));
        assert_eq!(brings("index"), creates("index"));
        assert_eq!(
            brings("function"),
            creates("or replace function") + creates("or replace procedure")
        );
        assert_eq!(brings("trigger"), creates("trigger"));
    }

    #[test]
    fn an_index_step_is_one_statement_that_can_be_built_concurrently() {
        for step in steps().iter().filter(|step| step.index().is_some()) {
            assert_eq!(step.sql.matches(';').count(), 1, "{}", step.sql);
            assert!(
                step.sql.starts_with("create index if not exists"),
                "{}",
                step.sql
            );
        }
    }
}
