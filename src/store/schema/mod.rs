//! Bringing the database up to what this program needs, and saying what is missing.
//!
//! `sql/schema.sql` is the only place where the schema stands: its steps are run here one by one, each only where something that it brings
//! is missing. So a database that psql set up and one that `migrate` set up are the same, and running either again does nothing.
//!
//! The table may be in use, by the predecessor or by an older version of this program. A step waits for its lock only briefly, because
//! every producer waits behind it, and is tried again; indexes on tables that hold rows are built CONCURRENTLY. Nothing is ever dropped but an
//! index of ours that an interrupted build left invalid.

use std::collections::BTreeSet;
use std::time::Duration;

use super::connect::Session;
use super::error::StoreError;
use crate::pause::pause;

/// The whole schema, fit for psql as it is.
pub const SCHEMA: &str = include_str!("../../sql/schema.sql");

/// Begins the line that says what the statement below it brings.
const STEP: &str = "\n-- step: ";

/// Longest wait for a lock, in SQL: what a producer notices at most.
const LOCK_TIMEOUT: &str = "2s";

/// How often a lock is tried: with the pauses for a minute and a half, longer than the usual report or batch job.
const LOCK_ATTEMPTS: u32 = 30;

/// How often it is looked whether another migration has ended: for an hour, as long as a very large index may take.
const TURN_ATTEMPTS: u32 = 3600;

/// Pause between two attempts, in which the waiting producers catch up.
const PAUSE: Duration = Duration::from_secs(1);

/// Name of the advisory lock that lets one migration run at a time; any number that nobody else is likely to use.
const MIGRATION_LOCK: i32 = 0x6469_7370;

/// The predecessor's index on due events: ours does its work, yet another program may still use it.
const PREDECESSORS_INDEX: &str = "idx_outbox_due";

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrateReport {
    /// Each thing done, in words; empty when there was nothing to do.
    pub done: Vec<String>,
    /// What a person might do now.
    pub advice: Vec<String>,
    /// What is missing still, because it cannot be added to an existing table.
    pub missing: Vec<String>,
}

/// Brings the schema up to date; `on_step` hears of each thing as it begins or has to wait.
pub fn migrate(
    session: &mut Session,
    on_step: &mut dyn FnMut(&str),
) -> Result<MigrateReport, StoreError> {
    let migrated = Migration {
        session,
        on_step,
        report: MigrateReport::default(),
    }
    .run();
    // Settings and advisory lock belong to the session, which goes on. After a failure that one matters, not this.
    let restored = session
        .batch(
            "end the migration",
            &format!(
                "select pg_advisory_unlock({MIGRATION_LOCK}, hashtext(current_schema())); reset client_min_messages; reset search_path"
            ),
        )
        .and_then(|()| session.set_up_again());
    let report = migrated?;
    restored?;
    Ok(report)
}

/// Lists in words what is missing for this program to run: `column outbox_event.last_error`.
pub fn missing(session: &mut Session) -> Result<Vec<String>, StoreError> {
    let there = inventory(session)?;
    let wanted = steps().into_iter().flat_map(|step| step.brings);
    Ok(wanted
        // Without a setting everything works.
        .filter(|name| !name.starts_with("setting ") && !there.contains(name))
        .collect())
}

impl Session {
    /// Lists in words what is missing for this program to run.
    pub fn missing_schema(&mut self) -> Result<Vec<String>, StoreError> {
        missing(self)
    }
}

/// One statement of the schema, or a few that belong together.
#[derive(Debug, Clone)]
struct Step {
    brings: Vec<String>,
    sql: &'static str,
}

impl Step {
    /// The name of the index that this step builds.
    fn index(&self) -> Option<&str> {
        self.brings.first()?.strip_prefix("index ")
    }

    /// Name and body of the function that this step makes.
    fn function(&self) -> Option<(&str, &'static str)> {
        let name = self.brings.first()?.strip_prefix("function ")?;
        Some((name, self.sql.split("$$").nth(1)?))
    }
}

fn steps() -> Vec<Step> {
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

/// Spells out the names in a step's line: `columns outbox_event (headers)` is `column outbox_event.headers`.
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

fn inventory(session: &mut Session) -> Result<BTreeSet<String>, StoreError> {
    let names = session.query(
        "look at the schema",
        include_str!("../../sql/inventory.sql"),
        &[],
        |row| row.try_get(0),
    )?;
    Ok(names.into_iter().collect())
}

/// A migration under way.
struct Migration<'a> {
    session: &'a mut Session,
    on_step: &'a mut dyn FnMut(&str),
    report: MigrateReport,
}

impl Migration<'_> {
    fn run(mut self) -> Result<MigrateReport, StoreError> {
        self.set_up()?;
        self.wait_for_turn()?;
        let there = inventory(self.session)?;
        let outdated = self.outdated_functions()?;
        for step in steps() {
            let missing: Vec<&str> = step
                .brings
                .iter()
                .map(String::as_str)
                .filter(|name| !there.contains(*name))
                .collect();
            if let Some(name) = step.index()
                && !missing.is_empty()
            {
                self.build_index(&step, name)?;
            } else if !missing.is_empty() {
                self.apply(&step, &format!("add {}", missing.join(", ")))?;
            } else if let Some((name, _)) = step.function()
                && outdated.iter().any(|one| one == name)
            {
                self.apply(&step, &format!("replace function {name}"))?;
            }
        }
        self.report.missing = missing(self.session)?;
        self.advise()?;
        Ok(self.report)
    }

    /// Everything of ours goes where the table is, or where it would be made; the functions are bound to that schema.
    fn set_up(&mut self) -> Result<(), StoreError> {
        let homes = self.session.query(
            "choose the schema",
            include_str!("../../sql/choose_schema.sql"),
            &[],
            |_| Ok(()),
        )?;
        if homes.is_empty() {
            return Err(StoreError::no_schema());
        }
        let settings = format!(
            "set statement_timeout = 0; set lock_timeout = '{LOCK_TIMEOUT}'; set client_min_messages = warning"
        );
        self.session.batch("set up the migration", &settings)
    }

    /// Lets one migration run at a time. Asked for again and again instead of waited for: a waiting statement holds a snapshot, and building
    /// an index concurrently would wait for that.
    fn wait_for_turn(&mut self) -> Result<(), StoreError> {
        for attempt in 0..TURN_ATTEMPTS {
            let got: Vec<bool> = self.session.query(
                "wait for another migration",
                "select pg_try_advisory_lock($1, hashtext(current_schema()))",
                &[&MIGRATION_LOCK],
                |row| row.try_get(0),
            )?;
            if got == [true] {
                return Ok(());
            }
            if attempt == 0 {
                (self.on_step)("another migration is running: waiting for its end");
            }
            pause(PAUSE);
        }
        Err(StoreError::timed_out(
            "migrate the schema",
            format!("another migration has been running for {TURN_ATTEMPTS} s"),
        ))
    }

    fn outdated_functions(&mut self) -> Result<Vec<String>, StoreError> {
        let steps = steps();
        let (names, bodies): (Vec<_>, Vec<_>) = steps.iter().filter_map(Step::function).unzip();
        self.session.query(
            "compare functions",
            include_str!("../../sql/outdated_functions.sql"),
            &[&names, &bodies],
            |row| row.try_get(0),
        )
    }

    fn apply(&mut self, step: &Step, what: &str) -> Result<(), StoreError> {
        (self.on_step)(what);
        self.with_retries(|session| session.batch("migrate the schema", step.sql))?;
        self.report.done.push(what.to_owned());
        Ok(())
    }

    /// On an empty table an index is there at once; otherwise it is built beside the writers. What an interrupted build has left goes first.
    fn build_index(&mut self, step: &Step, name: &str) -> Result<(), StoreError> {
        let what = format!("add index {name}");
        (self.on_step)(&what);
        let table = step
            .sql
            .split_whitespace()
            .skip_while(|word| *word != "on")
            .nth(1);
        let has_rows: Vec<bool> = self.session.query(
            "look for rows",
            "select coalesce(pg_relation_size(to_regclass($1::text)), 0) > 0",
            &[&table],
            |row| row.try_get(0),
        )?;
        self.with_retries(|session| {
            let is_left_over: Vec<bool> = session.query(
                "look for an invalid index",
                "select to_regclass($1::text) is not null",
                &[&name],
                |row| row.try_get(0),
            )?;
            if is_left_over == [true] {
                session.batch(
                    "drop an invalid index",
                    &format!("drop index concurrently {name}"),
                )?;
            }
            if has_rows == [true] {
                // Nobody waits behind this one; it waits for transactions that are older, however long they are.
                session.batch("build an index", "set lock_timeout = 0")?;
                let sql = step
                    .sql
                    .replacen("create index", "create index concurrently", 1);
                session.batch("build an index", &sql)?;
                session.batch(
                    "build an index",
                    &format!("set lock_timeout = '{LOCK_TIMEOUT}'"),
                )
            } else {
                session.batch("build an index", step.sql)
            }
        })?;
        self.report.done.push(what);
        Ok(())
    }

    /// Tries again what did not get its lock in time, or met another statement's locks the wrong way round.
    fn with_retries(
        &mut self,
        mut work: impl FnMut(&mut Session) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for attempt in 1.. {
            match work(self.session) {
                Err(err) if attempt < LOCK_ATTEMPTS && is_worth_a_retry(&err) => {
                    if attempt == 1 {
                        (self.on_step)("another transaction holds the table: waiting for its end");
                    }
                    pause(PAUSE);
                }
                result => return result,
            }
        }
        Ok(())
    }

    fn advise(&mut self) -> Result<(), StoreError> {
        let found: Vec<String> = self.session.query(
            "look for the predecessor's index",
            "select format('%I.%I', schemaname, indexname) from pg_indexes \
             where schemaname = current_schema() and tablename = 'outbox_event' and indexname = $1::text",
            &[&PREDECESSORS_INDEX],
            |row| row.try_get(0),
        )?;
        self.report.advice.extend(found.iter().map(|index| {
            format!("nothing here uses the index {index}, and each insert pays for it; if no other program does: DROP INDEX CONCURRENTLY {index}")
        }));
        Ok(())
    }
}

fn is_worth_a_retry(err: &StoreError) -> bool {
    err.is_lock_timeout() || err.is_conflict()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(brings("function"), creates("or replace function"));
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
