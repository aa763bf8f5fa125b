//! A database per test: cloned from the template in 40 ms, so sequences start at 1 and it holds no
//! rows, locks or NOTIFYs of another test.

use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use dispatchbox::dev::cluster::Cluster;
use postgres::types::ToSql;

use super::cluster::{TEMPLATE, shared};
use super::versions::drop_database;
use super::wait::wait_until;

/// Set to keep the database of a test that failed, and its server.
const KEEP: &str = "DISPATCHBOX_TEST_KEEP";

/// A test's own database, dropped with this value.
pub struct TestDb {
    name: String,
    directory: String,
    /// Only those of the shared server are dropped one by one; a private server takes its databases
    /// with it.
    is_shared: bool,
}

impl TestDb {
    /// Makes a database with the schema on the shared server.
    pub fn new() -> TestDb {
        let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        let mut db = TestDb::on(&cluster);
        db.is_shared = true;
        db
    }

    /// Makes a database with `n` due events of the type `order.created`, ids 1 to n, on the shared
    /// server.
    pub fn with_events(n: u32) -> TestDb {
        let db = TestDb::new();
        db.insert_events("order.created", n);
        db
    }

    /// Makes some of at least 13 dead events refuse their requeue, each in another way, and returns
    /// these with the reason that is told. Event 3 gets the aggregate of event 2, and only one
    /// event of an aggregate may wait.
    pub fn refuse_requeues(&self) -> [(i64, &'static str); 6] {
        self.execute(
            "UPDATE outbox_event SET aggregate_id = '2' WHERE id = 3;
             CREATE UNIQUE INDEX one_waits ON outbox_event (aggregate_id) WHERE status = 'pending';
             ALTER TABLE outbox_event ADD CONSTRAINT no_five CHECK (id <> 5 OR status = 'dead');
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE '%', tg_argv[0]; END $$;
             CREATE TRIGGER hold BEFORE UPDATE ON outbox_event FOR EACH ROW WHEN (old.id = 7) EXECUTE FUNCTION refuse('legal hold');
             CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER swallow BEFORE UPDATE ON outbox_event FOR EACH ROW WHEN (old.id = 9) EXECUTE FUNCTION swallow();
             CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON outbox_event DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW WHEN (old.id = 11) EXECUTE FUNCTION refuse('not yet');
             CREATE FUNCTION bury() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN UPDATE outbox_event SET status = 'dead' WHERE id = new.id; RETURN NULL; END $$;
             CREATE TRIGGER bury AFTER UPDATE ON outbox_event FOR EACH ROW WHEN (new.id = 13 AND new.status = 'pending') EXECUTE FUNCTION bury()",
        );
        let kept = "a trigger or a policy of outbox_event keeps it";
        [
            (
                3,
                r#"duplicate key value violates unique constraint "one_waits""#,
            ),
            (
                5,
                r#"new row for relation "outbox_event" violates check constraint "no_five""#,
            ),
            (7, "legal hold"),
            (9, kept),
            (11, "not yet"),
            (13, kept),
        ]
    }

    /// Makes a database with the schema, in an encoding other than UTF-8.
    pub fn in_encoding(encoding: &str) -> TestDb {
        let db = TestDb::new();
        let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        let mut server = cluster.client("postgres").unwrap();
        server
            .batch_execute(&format!("DROP DATABASE {}", db.name))
            .unwrap();
        server
            .batch_execute(&format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'",
                db.name
            ))
            .unwrap();
        drop(cluster);
        let mut session = super::session::session(&db);
        dispatchbox::store::schema::migrate(&mut session, &mut |_| {}).unwrap();
        db
    }

    /// Makes a database on a private server, which must outlive it.
    pub fn on(cluster: &Cluster) -> TestDb {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        cluster
            .client("postgres")
            .unwrap()
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            .unwrap();
        TestDb {
            name,
            directory: cluster.directory().display().to_string(),
            is_shared: false,
        }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of its server's socket.
    pub fn directory(&self) -> &Path {
        Path::new(&self.directory)
    }

    /// Where it is, in libpq's keyword form.
    pub fn dsn(&self) -> String {
        format!("host={} user=postgres dbname={}", self.directory, self.name)
    }

    /// A new connection.
    pub fn client(&self) -> postgres::Client {
        postgres::Client::connect(&self.dsn(), postgres::NoTls).unwrap()
    }

    /// Runs statements.
    pub fn execute(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap();
    }

    /// Asks for one number.
    pub fn number(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> i64 {
        self.client().query_one(sql, params).unwrap().get(0)
    }

    /// Counts the events with a status.
    pub fn count(&self, status: &str) -> i64 {
        let sql = "SELECT count(*) FROM outbox_event WHERE status = $1";
        self.number(sql, &[&status])
    }

    /// Counts the events for which this condition holds.
    pub fn count_where(&self, condition: &str) -> i64 {
        self.number(
            &format!("SELECT count(*) FROM outbox_event WHERE {condition}"),
            &[],
        )
    }

    /// Counts the lease rows.
    pub fn leases(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_lease", &[])
    }

    /// Ends all leases at once, so that no test waits for one.
    pub fn expire_leases(&self) {
        self.execute("UPDATE outbox_lease SET expires_at = '-infinity'");
    }

    /// Commits `n` due events, each of an aggregate of its own, and returns their ids.
    pub fn insert_events(&self, event_type: &str, n: u32) -> Vec<i64> {
        let sql = "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) \
                   SELECT 'order', i::text, $1, jsonb_build_object('n', i) \
                   FROM generate_series(1, $2::bigint) i RETURNING id";
        let rows = self
            .client()
            .query(sql, &[&event_type, &i64::from(n)])
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Wraps the claim function: the statements of `before` run first, in the transaction of the
    /// claim.
    pub fn wrap_claims(&self, before: &str) {
        self.execute(&format!(
            "create schema original;
             alter function outbox_claim_2 set schema original;
             create function outbox_claim_2(worker text, events_max int, bytes_max bigint, lease interval, after_at timestamptz, after_id bigint,
                                            stretch int, bounds text[], groups int[], takes int[])
             returns table (token bigint, group_no int, id bigint, aggregate_type text, aggregate_id text, event_type text, payload text, attempts int,
                            next_run_at timestamptz, created_at timestamptz, headers text)
             language plpgsql set lock_timeout = 0 as $$ begin
                 {before}
                 return query select * from original.outbox_claim_2(worker, events_max, bytes_max, lease, after_at, after_id, stretch, bounds, groups, takes);
             end $$"
        ));
    }

    /// Makes all sessions of its server, present and future, refuse to write, or write again. It is
    /// for private servers.
    pub fn set_read_only(&self, is_read_only: bool) {
        assert!(!self.is_shared, "others write there");
        let value = if is_read_only { "on" } else { "off" };
        let mut client = self.client();
        client
            .batch_execute("SET default_transaction_read_only = off")
            .unwrap();
        client
            .batch_execute(&format!(
                "ALTER SYSTEM SET default_transaction_read_only = {value}"
            ))
            .unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
        wait_until("the server has taken in the setting", || {
            let setting = "SELECT count(*) FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting = $1";
            self.number(setting, &[&value]) == 1
        });
    }

    /// Leaves database and server for a look after the failure; the person who looks ends the
    /// server.
    fn keep(&self) {
        let mut cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(postmaster) = cluster.keep() else {
            return;
        };
        eprintln!(
            "kept: psql 'host={} user=postgres dbname={}'   (end it with: kill -INT {})",
            self.directory,
            self.name,
            postmaster.as_raw_nonzero()
        );
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if !self.is_shared {
            return;
        }
        if std::thread::panicking() {
            if std::env::var_os(KEEP).is_some() {
                self.keep();
                return;
            }
            eprintln!("set {KEEP}=1 to keep the database of this test");
        }
        let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever a failed test still has connected is thrown out; a second panic here would hide
        // the first.
        if let Ok(mut server) = cluster.client("postgres") {
            let _ = drop_database(&mut server, &self.name);
        }
    }
}
