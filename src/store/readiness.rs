//! Whether events could be delivered now, and if not, what a person has to do. Checked before the
//! start and for /ready.

use std::fmt;

use crate::store::error::StoreError;
use crate::store::out_of_reach::OutOfReach;
use crate::store::session::Session;

/// The names that a message shows of a longer list: they fit into one line of a log, and the remedy
/// for them is that for all.
const NAMES_MAX: usize = 10;

/// What keeps this program from running on a database until a person has set it right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingPrerequisite {
    /// The role may not do what delivering needs.
    Privileges {
        /// The role of the session.
        role: String,
        /// In the words of a grant: `UPDATE (status) on outbox_event`.
        lacking: Vec<String>,
    },
    /// Tables, columns, indexes, triggers or functions are not there: `column
    /// outbox_event.last_error`.
    Schema(Vec<String>),
    /// The tables stand in a schema that the search_path does not reach.
    OutOfReach(OutOfReach),
    /// The application's tables have columns of types that this program cannot work with: `column
    /// outbox_event.id is integer, must be bigint`.
    Types(Vec<String>),
    /// Row-level security hides rows from the role, which no statement reports; each table with its
    /// remedy.
    RowSecurity(Vec<String>),
}

/// Shows the remedy first, because the list may be long.
impl fmt::Display for MissingPrerequisite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissingPrerequisite::Privileges { role, lacking } => write!(
                f,
                "grant what `sql/roles.sql` grants to dispatchbox_daemon: the role {role} lacks {}",
                shortened(lacking.iter().map(String::as_str), lacking.len())
            ),
            MissingPrerequisite::Schema(missing) => write!(
                f,
                "run `dispatchbox migrate`: the schema lacks {}",
                grouped(missing)
            ),
            MissingPrerequisite::OutOfReach(found) => found.fmt(f),
            MissingPrerequisite::Types(unfit) => write!(
                f,
                "change the table: {}",
                shortened(unfit.iter().map(String::as_str), unfit.len())
            ),
            MissingPrerequisite::RowSecurity(hidden) => f.write_str(&hidden.join("; ")),
        }
    }
}

impl Session {
    /// Looks for a prerequisite that is missing and that a person has to provide; `None` if there
    /// is none.
    pub fn missing_prerequisite(&mut self) -> Result<Option<MissingPrerequisite>, StoreError> {
        // The privileges come first, because everything in a schema that the role may not use seems
        // to be missing.
        if let Some(missing) = self.lacking_privileges()? {
            return Ok(Some(missing));
        }
        // A migration refuses such a table, too.
        let unfit = self.unfit_columns()?;
        if !unfit.is_empty() {
            // It may be another table of that name.
            let found = self.out_of_reach()?;
            return Ok(Some(found.map_or(
                MissingPrerequisite::Types(unfit),
                MissingPrerequisite::OutOfReach,
            )));
        }
        let missing = self.missing_schema()?;
        if !missing.is_empty() {
            let found = self.out_of_reach()?;
            return Ok(Some(found.map_or(
                MissingPrerequisite::Schema(missing),
                MissingPrerequisite::OutOfReach,
            )));
        }
        let hidden = self.hidden_rows()?;
        Ok((!hidden.is_empty()).then_some(MissingPrerequisite::RowSecurity(hidden)))
    }

    /// Lists in words the tables whose row-level security hides rows from this role.
    pub(super) fn hidden_rows(&mut self) -> Result<Vec<String>, StoreError> {
        self.rows_hidden_from(false)
    }

    /// Says that row-level security hides events from this role as it reads them, and what helps:
    /// what a statement does not find may be there.
    pub fn hidden_from_readers(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.rows_hidden_from(true)?.into_iter().next())
    }

    fn rows_hidden_from(&mut self, is_reader: bool) -> Result<Vec<String>, StoreError> {
        self.query(
            "look at the row-level security",
            include_str!("../../sql/row_security.sql"),
            &[&is_reader],
            |row| row.try_get(0),
        )
    }

    /// Fails where the role may not even look into the schema that holds the tables: everything in
    /// it would seem to be missing.
    pub(super) fn check_usage(&mut self) -> Result<(), StoreError> {
        let Some(MissingPrerequisite::Privileges { role, lacking }) = self.lacking_privileges()?
        else {
            return Ok(());
        };
        match lacking
            .iter()
            .find(|privilege| privilege.starts_with("USAGE "))
        {
            Some(usage) => Err(StoreError::lacks_privilege(
                "look at the schema",
                &role,
                usage,
            )),
            None => Ok(()),
        }
    }

    /// Runs the statements of claiming and settling on no row; fails as they would.
    pub fn rehearse(&mut self) -> Result<(), StoreError> {
        self.query(
            "try out a claim",
            include_str!("../../sql/rehearse.sql"),
            &[],
            |_| Ok(()),
        )
        .map(|_| ())
    }

    /// Names what the session's role lacks to deliver events; `None` where that is nothing.
    pub fn lacking_privileges(&mut self) -> Result<Option<MissingPrerequisite>, StoreError> {
        let rows: Vec<(String, String)> = self.query(
            "look at the privileges",
            include_str!("../../sql/privileges.sql"),
            &[],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )?;
        let role = rows.first().map(|(role, _)| role.clone());
        Ok(role.map(|role| MissingPrerequisite::Privileges {
            role,
            lacking: rows.into_iter().map(|(_, privilege)| privilege).collect(),
        }))
    }
}

/// `the tables outbox_event, outbox_lease, the function outbox_claim_2 and 31 more`. A part of a
/// table that is missing as a whole is not named.
fn grouped(missing: &[String]) -> String {
    const KINDS: [(&str, &str); 5] = [
        ("table", "tables"),
        ("column", "columns"),
        ("function", "functions"),
        ("index", "indexes"),
        ("trigger", "triggers"),
    ];
    let all: Vec<(&str, &str)> = missing
        .iter()
        .filter_map(|name| name.split_once(' '))
        .collect();
    let is_table_missing = |table: &str| all.contains(&("table", table));
    let mut words = Vec::new();
    for (kind, plural) in KINDS {
        let names: Vec<&str> = all
            .iter()
            .filter(|(of_kind, _)| *of_kind == kind)
            .map(|&(_, name)| name)
            .filter(|name| {
                let table = name.split_once('.').map(|(table, _)| table);
                !table.is_some_and(is_table_missing)
            })
            .collect();
        let word = if names.len() == 1 { kind } else { plural };
        words.extend(names.iter().enumerate().map(|(index, name)| match index {
            0 => format!("the {word} {name}"),
            _ => (*name).to_owned(),
        }));
    }
    shortened(words.iter().map(String::as_str), words.len())
}

fn shortened<'a>(words: impl Iterator<Item = &'a str>, n_words: usize) -> String {
    let shown: Vec<&str> = words.take(NAMES_MAX).collect();
    let shown = shown.join(", ");
    match n_words.saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(missing: &[&str], expected: &str) {
        let missing = missing.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(MissingPrerequisite::Schema(missing).to_string(), expected);
    }

    #[test]
    fn what_is_missing_is_grouped_behind_the_remedy() {
        check(
            &["function outbox_settle_1"],
            "run `dispatchbox migrate`: the schema lacks the function outbox_settle_1",
        );
        check(
            &[
                "column outbox_event.headers",
                "index outbox_event_due",
                "table outbox_lease",
                "column outbox_lease.token",
                "column outbox_event.last_error",
            ],
            "run `dispatchbox migrate`: the schema lacks the table outbox_lease, \
             the columns outbox_event.headers, outbox_event.last_error, the index outbox_event_due",
        );
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let names: Vec<String> = (1..=12).map(|n| format!("function f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        check(
            &names,
            "run `dispatchbox migrate`: the schema lacks the functions f1, f2, f3, f4, f5, f6, f7, f8, f9, f10 and 2 more",
        );
    }

    #[test]
    fn lacking_privileges_are_told_with_the_role() {
        let missing = MissingPrerequisite::Privileges {
            role: "shop".to_owned(),
            lacking: vec![
                "UPDATE (status) on outbox_event".to_owned(),
                "DELETE on outbox_lease".to_owned(),
            ],
        };
        assert_eq!(
            missing.to_string(),
            "grant what `sql/roles.sql` grants to dispatchbox_daemon: the role shop lacks UPDATE (status) on outbox_event, DELETE on outbox_lease"
        );
    }
}
