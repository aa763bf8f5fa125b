//! Migrates the schema of the database, and checks it.
//!
//! `sql/schema.sql` is the only place where the schema stands: its steps are run one by one, each
//! only where something that it brings is missing. So a database that psql set up and one that
//! `migrate` set up are the same, and running either again does nothing.

mod migration;
mod steps;

use std::collections::BTreeSet;

use crate::store::error::StoreError;
use crate::store::session::Session;
use migration::Migration;
use steps::{Step, steps};

/// The whole schema, fit for psql as it is.
pub const SCHEMA: &str = include_str!("../../../sql/schema.sql");

/// The flaws of a schema, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flaws {
    /// `column outbox_event.last_error`; a migration adds it, unless it would have to be one of the
    /// predecessor's columns.
    pub missing: Vec<String>,
    /// `function outbox_settle_1`, which is there with the body of another version; a migration
    /// replaces it.
    pub outdated: Vec<String>,
    /// `column outbox_event.id is integer, must be bigint`; only the owner of the table can change
    /// it. No other flaw is looked for then, because a migration changes nothing before this is set
    /// right.
    pub unfit: Vec<String>,
    /// Tables whose row-level security hides rows from the session's role, with the remedy.
    pub hidden: Vec<String>,
}

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrateReport {
    /// Each thing done, in words; empty when there was nothing to do.
    pub done: Vec<String>,
    /// What a person might do now.
    pub advice: Vec<String>,
    /// What cannot be changed in an existing table.
    pub left: Flaws,
}

/// Brings the schema up to date; `on_step` is called for each step as it begins or has to wait.
pub fn migrate(
    session: &mut Session,
    on_step: &mut dyn FnMut(&str),
) -> Result<MigrateReport, StoreError> {
    let migrated = Migration::new(session, on_step).run();
    // Settings and advisory lock belong to the session, which stays in use. The error of the
    // migration has precedence over this one.
    let restored = migration::restore(session);
    let report = migrated?;
    restored?;
    Ok(report)
}

/// What was found without changing anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The flaws.
    pub flaws: Flaws,
    /// What a person might do now.
    pub advice: Vec<String>,
}

/// Looks for flaws of the schema, and changes nothing.
pub fn check(session: &mut Session) -> Result<CheckReport, StoreError> {
    session.check_usage()?;
    session.check_reach()?;
    if choose(session)?.is_none() {
        let missing = session.query(
            "look at the search_path",
            "select 'any schema of the search_path (' || current_setting('search_path') || ')'",
            &[],
            |row| row.try_get(0),
        )?;
        return Ok(CheckReport {
            flaws: Flaws {
                missing,
                ..Flaws::default()
            },
            ..CheckReport::default()
        });
    }
    let flaws = flaws(session)?;
    let advice = advice(session)?;
    Ok(CheckReport { flaws, advice })
}

impl Flaws {
    /// Says whether there are no flaws.
    pub fn is_empty(&self) -> bool {
        [&self.missing, &self.outdated, &self.unfit, &self.hidden]
            .iter()
            .all(|names| names.is_empty())
    }
}

impl Session {
    /// Lists in words what is missing for this program to run: `column outbox_event.last_error`.
    pub fn missing_schema(&mut self) -> Result<Vec<String>, StoreError> {
        let there = inventory(self)?;
        let wanted = steps().into_iter().flat_map(|step| step.brings);
        Ok(wanted
            // Without a setting everything works.
            .filter(|name| !name.starts_with("setting ") && !there.contains(name))
            .collect())
    }

    /// Lists in words what this program cannot work with in the application's own tables: their
    /// kind, types, a missing unique index.
    pub fn unfit_columns(&mut self) -> Result<Vec<String>, StoreError> {
        self.query(
            "look at the columns",
            include_str!("../../../sql/unfit_columns.sql"),
            &[],
            |row| row.try_get(0),
        )
    }
}

/// Binds the session to the schema that holds outbox_event, or else to the one where it would be
/// made; returns its name.
fn choose(session: &mut Session) -> Result<Option<String>, StoreError> {
    let homes = session.bind(
        "choose the schema",
        include_str!("../../../sql/choose_schema.sql"),
        |row| row.try_get(0),
    )?;
    Ok(homes.into_iter().next())
}

fn flaws(session: &mut Session) -> Result<Flaws, StoreError> {
    let unfit = session.unfit_columns()?;
    if !unfit.is_empty() {
        return Ok(Flaws {
            unfit,
            ..Flaws::default()
        });
    }
    Ok(Flaws {
        missing: told_once(session.missing_schema()?),
        outdated: outdated_functions(session)?
            .into_iter()
            .map(|name| format!("function {name}"))
            .collect(),
        unfit,
        hidden: session.hidden_rows()?,
    })
}

/// Leaves out what a missing table implies: its columns, and, if there is no outbox at all,
/// everything but the tables.
fn told_once(missing: Vec<String>) -> Vec<String> {
    let is_missing = |table: &str| {
        let name = missing
            .iter()
            .filter_map(|name| name.strip_prefix("table "));
        name.into_iter().any(|name| name == table)
    };
    if is_missing("outbox_event") {
        let is_table = |name: &&String| name.starts_with("table ");
        return missing.iter().filter(is_table).cloned().collect();
    }
    let is_told = |name: &&String| {
        let column = name.strip_prefix("column ");
        let table = column.and_then(|column| column.split_once('.'));
        !table.is_some_and(|(table, _)| is_missing(table))
    };
    missing.iter().filter(is_told).cloned().collect()
}

/// The predecessor's index on due events: ours does its work, yet another program may still use it.
const PREDECESSORS_INDEX: &str = "idx_outbox_due";

fn advice(session: &mut Session) -> Result<Vec<String>, StoreError> {
    session.query(
        "look what else might be done",
        include_str!("../../../sql/table_advice.sql"),
        &[&PREDECESSORS_INDEX],
        |row| row.try_get(0),
    )
}

fn inventory(session: &mut Session) -> Result<BTreeSet<String>, StoreError> {
    let names = session.query(
        "look at the schema",
        include_str!("../../../sql/inventory.sql"),
        &[],
        |row| row.try_get(0),
    )?;
    Ok(names.into_iter().collect())
}

/// Names the functions that are there as another version made them; needs a session that is bound
/// to their schema.
fn outdated_functions(session: &mut Session) -> Result<Vec<String>, StoreError> {
    let steps = steps();
    let (names, bodies): (Vec<_>, Vec<_>) = steps.iter().filter_map(Step::function).unzip();
    session.query(
        "compare functions",
        include_str!("../../../sql/outdated_functions.sql"),
        &[&names, &bodies],
        |row| row.try_get(0),
    )
}
