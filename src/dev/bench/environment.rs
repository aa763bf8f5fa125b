//! Where the bench runs: a throwaway server, or a schema of its own in the database that `--dsn`
//! names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dev::bench::BenchError;
use crate::dev::cluster::{Cluster, ServerSettings};
use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts};

/// Filling the table with a million events takes some ten seconds.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    query: Duration::from_mins(10),
};

/// The database of a bench, whose tables are empty before each run.
pub(super) struct Environment {
    /// The session of the bench's own statements.
    pub(super) session: Session,
    dsn_text: String,
    libpq: BTreeMap<String, String>,
    schema: Option<String>,
    /// Dropped last: the server ends after everything else here.
    _cluster: Option<Cluster>,
}

/// The content of the table after a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableResult {
    /// When the last event was done, in seconds by the database's clock.
    pub(super) finished_at: f64,
    /// Events that are not done.
    pub(super) lost: u64,
    /// Events that are done after more than one attempt.
    pub(super) duplicates: u64,
}

impl Environment {
    /// Starts a server with these settings, or makes a schema in the database that `dsn` names.
    pub(super) fn enter(
        dsn: Option<&str>,
        settings: &ServerSettings,
    ) -> Result<Environment, BenchError> {
        match dsn {
            None => Environment::throwaway(settings),
            Some(dsn) => Environment::schema_in(dsn),
        }
    }

    fn throwaway(settings: &ServerSettings) -> Result<Environment, BenchError> {
        let cluster = Cluster::start(settings)?;
        let dsn_text = cluster.dsn("postgres");
        let libpq = BTreeMap::new();
        let mut session = connect(&dsn_text, &libpq)?;
        load_schema(&mut session)?;
        Ok(Environment {
            session,
            dsn_text,
            libpq,
            schema: None,
            _cluster: Some(cluster),
        })
    }

    fn schema_in(dsn: &str) -> Result<Environment, BenchError> {
        let schema = format!("dispatchbox_bench_{}", std::process::id());
        let mut libpq: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| name.starts_with("PG"))
            .collect();
        let options = libpq.entry("PGOPTIONS".to_owned()).or_default();
        *options = format!("{options} -c search_path={schema}");
        let mut session = connect(dsn, &libpq)?;
        let create = format!("CREATE SCHEMA {schema}");
        session.batch("create a schema for the bench", &create)?;
        let mut environment = Environment {
            session,
            dsn_text: dsn.to_owned(),
            libpq,
            schema: Some(schema),
            _cluster: None,
        };
        environment.check_schema()?;
        load_schema(&mut environment.session)?;
        Ok(environment)
    }

    /// Fails where the tables would be in another schema: the bench empties them. The DSN's own
    /// `options` override ours, and a pooler may drop both.
    fn check_schema(&mut self) -> Result<(), BenchError> {
        let found: Vec<Option<String>> = self.session.query(
            "look at the search_path",
            "SELECT current_schema()::text",
            &[],
            |row| row.try_get(0),
        )?;
        let found = found.into_iter().next().flatten();
        if found == self.schema {
            return Ok(());
        }
        Err(BenchError::OtherSchema(found.unwrap_or_default()))
    }

    /// Opens one more connection.
    pub(super) fn connect(&self) -> Result<Session, BenchError> {
        connect(&self.dsn_text, &self.libpq)
    }

    /// The DSN and libpq's variables, for the daemon.
    pub(super) fn place(&self) -> (&str, &BTreeMap<String, String>) {
        (&self.dsn_text, &self.libpq)
    }

    /// Empties the tables and fills in `events` due events.
    pub(super) fn fill(&mut self, events: u32) -> Result<(), BenchError> {
        let empty = "TRUNCATE outbox_event, outbox_lease RESTART IDENTITY";
        self.session.batch("empty the tables", empty)?;
        // Only superusers may write a checkpoint. Where it is refused, the run writes some more
        // full page images.
        let _ = self.session.batch("write a checkpoint", "CHECKPOINT");
        self.session.query(
            "insert the events",
            include_str!("../../../sql/bench_fill.sql"),
            &[&i64::from(events)],
            |_| Ok(()),
        )?;
        self.session
            .batch("analyze the table", "ANALYZE outbox_event")?;
        Ok(())
    }

    /// Bytes of WAL that the server has written so far.
    pub(super) fn wal_bytes(&mut self) -> Result<f64, StoreError> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
        let positions = self
            .session
            .query("read the WAL position", sql, &[], |row| row.try_get(0))?;
        Ok(positions.first().copied().unwrap_or(0.0))
    }

    /// Reads the result of a run from the whole table.
    pub(super) fn result(&mut self) -> Result<TableResult, StoreError> {
        let sql = include_str!("../../../sql/bench_result.sql");
        let results = self.session.query("read the result", sql, &[], |row| {
            let count = |n: i64| u64::try_from(n).unwrap_or(0);
            Ok(TableResult {
                finished_at: row.try_get::<_, Option<f64>>(0)?.unwrap_or(0.0),
                lost: count(row.try_get(1)?),
                duplicates: count(row.try_get(2)?),
            })
        })?;
        Ok(*results
            .first()
            .expect("a query without GROUP BY returns a row"))
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(schema) = &self.schema {
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            if let Err(error) = self.session.batch("remove the bench's schema", &drop) {
                log::warn!("{error}; please run: {drop}");
            }
        }
    }
}

fn connect(dsn: &str, libpq: &BTreeMap<String, String>) -> Result<Session, BenchError> {
    let dsn = Dsn::resolve(Some(dsn), libpq, &mut Vec::new())?;
    Ok(store::connect(&dsn, &TIMEOUTS, "dispatchbox bench")?)
}

fn load_schema(session: &mut Session) -> Result<(), StoreError> {
    store::schema::migrate(session, &mut |_| {}).map(drop)
}
