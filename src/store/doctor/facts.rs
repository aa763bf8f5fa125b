//! Facts that a check judges in the program, beside what it knows of the settings.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::text::Text;

/// Event types that are listed.
const TYPES_MAX: i64 = 1000;

/// A table as vacuum sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VacuumedTable {
    /// Its name, as a statement writes it.
    pub name: String,
    /// Rows, as the server estimates them.
    pub rows: i64,
    /// Dead rows, as the server counts them.
    pub dead_rows: i64,
    /// When it was last vacuumed, as far as the statistics tell.
    pub vacuumed: Option<String>,
    /// Whether autovacuum may look after it.
    pub is_enabled: bool,
    /// The number of dead rows at which autovacuum begins.
    pub begins_at: i64,
    /// The age of its oldest transaction id.
    pub age: i64,
}

/// The age of the oldest ids of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Age {
    /// `transaction ids`.
    pub what: String,
    /// How many were given since.
    pub age: i64,
    /// The age at which autovacuum begins to freeze, whatever its settings.
    pub freezes_at: i64,
}

/// A limit of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// `max_connections`.
    pub name: String,
    /// What raises it.
    pub remedy: String,
    /// How many connections it allows to roles that are no superusers.
    pub most: i64,
    /// How many other programs have.
    pub others: i64,
}

/// How the server sees the connection.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Version and cipher of TLS, where it is used.
    pub tls: Option<(String, String)>,
    /// Whether the client is on the server's host.
    pub is_local: bool,
}

/// How far two clocks are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockDifference {
    /// Seconds by which the server's is ahead of this host's.
    pub ahead: f64,
    /// By how many seconds that may be wrong: half of the time that the question took.
    pub error: f64,
}

impl Session {
    /// Lists our tables as vacuum sees them.
    pub fn vacuumed_tables(&mut self) -> Result<Vec<VacuumedTable>, StoreError> {
        self.query(
            "look at the tables' statistics",
            include_str!("../../../sql/doctor/tables.sql"),
            &[],
            |row| {
                Ok(VacuumedTable {
                    name: row.try_get(0)?,
                    rows: row.try_get(1)?,
                    dead_rows: row.try_get(2)?,
                    vacuumed: row.try_get(3)?,
                    is_enabled: row.try_get(4)?,
                    begins_at: row.try_get(5)?,
                    age: row.try_get(6)?,
                })
            },
        )
    }

    /// Lists the ages of the database's oldest ids.
    pub fn ages(&mut self) -> Result<Vec<Age>, StoreError> {
        self.query(
            "look at the age of the database",
            include_str!("../../../sql/doctor/ages.sql"),
            &[],
            |row| {
                Ok(Age {
                    what: row.try_get(0)?,
                    age: row.try_get(1)?,
                    freezes_at: row.try_get(2)?,
                })
            },
        )
    }

    /// Lists the limits that connections of this role meet.
    pub fn connection_limits(&mut self) -> Result<Vec<ConnectionLimit>, StoreError> {
        self.query(
            "count the connections",
            include_str!("../../../sql/doctor/connections.sql"),
            &[],
            |row| {
                Ok(ConnectionLimit {
                    name: row.try_get(0)?,
                    remedy: row.try_get(1)?,
                    most: row.try_get::<_, i32>(2)?.into(),
                    others: row.try_get(3)?,
                })
            },
        )
    }

    /// Asks how the server sees this connection; behind a pooler it is the pooler's own one.
    pub fn encryption(&mut self) -> Result<Encryption, StoreError> {
        let found = self.query(
            "look at the connection's encryption",
            include_str!("../../../sql/doctor/encryption.sql"),
            &[],
            |row| {
                let version: Option<String> = row.try_get(0)?;
                let cipher: Option<String> = row.try_get(1)?;
                Ok(Encryption {
                    tls: version.map(|version| (version, cipher.unwrap_or_default())),
                    is_local: row.try_get(2)?,
                })
            },
        )?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// Counts the types of the first events that wait to be delivered.
    pub fn waiting_types(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        self.query(
            "look at the types of the events that wait",
            include_str!("../../../sql/doctor/waiting_types.sql"),
            &[&TYPES_MAX],
            |row| {
                let event_type: Text = row.try_get(0)?;
                Ok((event_type.into(), row.try_get::<_, i64>(1)?.unsigned_abs()))
            },
        )
    }

    /// Compares the server's clock with this host's.
    pub fn clock_difference(&mut self) -> Result<ClockDifference, StoreError> {
        // The first call of a statement takes another round trip.
        self.now()?;
        let asked = Instant::now();
        let began = SystemTime::now();
        let server = self.now()?;
        let error = asked.elapsed().as_secs_f64() / 2.0;
        let host = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(ClockDifference {
            ahead: seconds(server) - host.as_secs_f64() - error,
            error,
        })
    }

    /// The server's process that answered this question.
    pub fn back_end(&mut self) -> Result<i32, StoreError> {
        let sql = "select pg_backend_pid()";
        let pids = self.query("ask for the process", sql, &[], |row| row.try_get(0))?;
        Ok(pids.first().copied().unwrap_or(0))
    }
}

fn seconds(micros: i64) -> f64 {
    Duration::from_micros(micros.unsigned_abs()).as_secs_f64()
}
