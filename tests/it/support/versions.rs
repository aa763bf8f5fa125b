//! What one major version of PostgreSQL has and another lacks, so that a test has one way for all.

use super::TestDb;

/// The server's major version.
pub fn major_version(client: &mut postgres::Client) -> i32 {
    let version = "select current_setting('server_version_num')::integer / 10000";
    client.query_one(version, &[]).unwrap().get(0)
}

/// Drops a database, whoever is connected to it: `with (force)`, which PostgreSQL 12 lacks.
pub fn drop_database(server: &mut postgres::Client, name: &str) -> Result<(), postgres::Error> {
    server.batch_execute(&format!(
        "alter database {name} with allow_connections false"
    ))?;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    server.query(end, &[&name])?;
    // It waits for those that are ending, as `with (force)` does.
    server.batch_execute(&format!("drop database {name}"))
}

/// The server closes connections that have been idle for 2.5 s: by its setting, or, before
/// PostgreSQL 14, by the hand of who waits for it.
pub struct IdleLimit<'a> {
    db: &'a TestDb,
    is_by_hand: bool,
}

impl IdleLimit<'_> {
    pub fn of(db: &TestDb) -> IdleLimit<'_> {
        let is_by_hand = major_version(&mut db.client()) < 14;
        if !is_by_hand {
            db.execute(&format!(
                "alter database {} set idle_session_timeout = '2500ms'",
                db.name()
            ));
        }
        IdleLimit { db, is_by_hand }
    }

    /// Closes what has been idle for too long now, where the server does not by itself.
    pub fn look(&self) {
        if self.is_by_hand {
            self.db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and state = 'idle' and state_change < now() - interval '2500 ms'",
            );
        }
    }
}
