//! The table of checks. To add one: its statement in `store::doctor::statements`, or a function
//! here, and its line in [`CHECKS`].

mod connections;
mod encryption;
mod events;
mod pooler;
mod schema;
mod vacuum;

use crate::cli::commands::doctor::Daemon;
use crate::store::doctor::facts::VacuumedTable;
use crate::store::doctor::{Finding, statements};
use crate::store::{Session, StoreError};

/// What has expired or was begun so many leases ago is left behind: 5 minutes, usually.
const LONG: f64 = 5.0;

/// What is looked at.
pub(super) struct Patient<'a> {
    session: &'a mut Session,
    daemon: &'a Daemon,
    /// Our tables as vacuum sees them, once a check has asked.
    tables: Option<Vec<VacuumedTable>>,
}

impl Patient<'_> {
    pub(super) fn new<'a>(session: &'a mut Session, daemon: &'a Daemon) -> Patient<'a> {
        Patient {
            session,
            daemon,
            tables: None,
        }
    }

    /// Our tables as vacuum sees them.
    fn tables(&mut self) -> Result<&[VacuumedTable], StoreError> {
        let tables = match self.tables.take() {
            Some(tables) => tables,
            None => self.session.vacuumed_tables()?,
        };
        Ok(self.tables.insert(tables))
    }
}

type Findings = Result<Vec<Finding>, StoreError>;

/// One check.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What is said where nothing is found.
    pub(super) fine: &'static str,
    look: Look,
}

/// How a check looks.
#[derive(Clone, Copy)]
enum Look {
    /// By a statement that returns what is wrong.
    Statement(&'static str),
    /// By a statement that returns what is older than its parameter.
    TooOld(&'static str),
    /// By a function that judges.
    Function(fn(&mut Patient<'_>) -> Findings),
}

impl Check {
    /// Looks, and returns what is found.
    pub(super) fn look(&self, patient: &mut Patient<'_>) -> Findings {
        match self.look {
            Look::Statement(sql) => patient.session.findings(sql, None),
            Look::TooOld(sql) => {
                let seconds = patient.daemon.config.lease.as_secs_f64() * LONG;
                patient.session.findings(sql, Some(seconds))
            }
            Look::Function(look) => look(patient),
        }
    }
}

const fn check(name: &'static str, look: Look, fine: &'static str) -> Check {
    Check { name, fine, look }
}

/// The checks in the order of the report: what stops everything comes first.
pub(super) const CHECKS: &[Check] = &[
    check("server", Look::Statement(statements::SERVER), ""),
    check("encryption", Look::Function(encryption::look), ""),
    check(
        "pooler",
        Look::Function(pooler::look),
        "no pooler in between",
    ),
    check("schema", Look::Function(schema::look), "complete"),
    check(
        "other schemas",
        Look::Statement(statements::TWICE),
        "there is one outbox",
    ),
    check("indexes", Look::Statement(statements::INDEXES), "valid"),
    check(
        "privileges",
        Look::Function(schema::privileges),
        "all that is needed",
    ),
    check(
        "rights",
        Look::Statement(statements::RIGHTS),
        "no more than needed",
    ),
    check("connections", Look::Function(connections::look), ""),
    check(
        "durability",
        Look::Statement(statements::DURABILITY),
        "what is committed stays",
    ),
    check("clock", Look::Function(connections::clock), ""),
    check(
        "transactions",
        Look::TooOld(statements::TRANSACTIONS),
        "none is open for long",
    ),
    check(
        "prepared transactions",
        Look::TooOld(statements::PREPARED),
        "none is forgotten",
    ),
    check(
        "replication slots",
        Look::Statement(statements::SLOTS),
        "none holds anything back",
    ),
    check("dead rows", Look::Function(vacuum::dead_rows), "few"),
    check(
        "autovacuum",
        Look::Function(vacuum::autovacuum),
        "on, and early enough",
    ),
    check("wraparound", Look::Function(vacuum::wraparound), "far away"),
    check(
        "leases",
        Look::TooOld(statements::LEASES),
        "none is left behind",
    ),
    check(
        "event types",
        Look::Function(events::types),
        "each that waits has a route",
    ),
    check(
        "due times and statuses",
        Look::Statement(statements::UNDELIVERABLE),
        "nothing that is never due",
    ),
    check(
        "unreadable events",
        Look::Statement(statements::UNREADABLE),
        "none",
    ),
    check(
        "triggers",
        Look::Statement(statements::TRIGGERS),
        "none of other programs",
    ),
    check(
        "foreign keys",
        Look::Statement(statements::FOREIGN_KEYS),
        "none keeps done events",
    ),
];
