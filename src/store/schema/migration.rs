//! A migration of a table that may be in use, by the predecessor or by an older version of this
//! program.
//!
//! A step waits for its lock only briefly, because every producer waits behind it, and is tried
//! again; indexes on tables that hold rows are built CONCURRENTLY. Nothing is ever dropped but an
//! index of ours that an interrupted build left invalid.

use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::schema::steps::{Step, steps};
use crate::store::schema::{MigrateReport, advice, choose, flaws, inventory, outdated_functions};
use crate::store::session::Session;
use crate::system::pause::sleep_uninterruptibly;

/// Longest wait for a lock, in SQL: what a producer notices at most. With the pause behind it,
/// producers wait for less than a quarter of the time that another session has locked the table.
const LOCK_TIMEOUT: &str = "300ms";

/// Pause between two attempts, in which the waiting producers catch up.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a lock is tried: with the pauses for a minute and a half, longer than the usual report
/// or batch job.
const LOCK_ATTEMPTS: u32 = 70;

/// How often the migration checks whether another one has ended: for an hour, as long as a very
/// large index may take.
const TURN_ATTEMPTS: u32 = 3600;

/// Name of the advisory lock that lets one migration run at a time; any number that other programs
/// are unlikely to use.
const MIGRATION_LOCK: i32 = 0x6469_7370;

/// The action in error messages, which completes "could not".
const DOING: &str = "migrate the schema";

/// A migration under way.
pub(super) struct Migration<'a> {
    session: &'a mut Session,
    on_step: &'a mut dyn FnMut(&str),
    report: MigrateReport,
}

/// Puts the session's settings back.
pub(super) fn restore(session: &mut Session) -> Result<(), StoreError> {
    let sql = format!(
        "select pg_advisory_unlock({MIGRATION_LOCK}, hashtext(current_schema())); reset client_min_messages; reset search_path"
    );
    session.batch("end the migration", &sql)?;
    session.set_up_again()
}

impl<'a> Migration<'a> {
    pub(super) fn new(session: &'a mut Session, on_step: &'a mut dyn FnMut(&str)) -> Migration<'a> {
        Migration {
            session,
            on_step,
            report: MigrateReport::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<MigrateReport, StoreError> {
        self.set_up()?;
        self.wait_for_turn()?;
        // This check comes before any change: a table that this program cannot work with stays as
        // it is.
        self.report.left.unfit = self.session.unfit_columns()?;
        if !self.report.left.unfit.is_empty() {
            return Ok(self.report);
        }
        let there = inventory(self.session)?;
        let outdated = outdated_functions(self.session)?;
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
        self.report.left = flaws(self.session)?;
        self.report.advice = advice(self.session)?;
        Ok(self.report)
    }

    /// Binds the session to the schema of the table, or to the one where it would be made. All
    /// objects of the outbox go there, and the functions are bound to it.
    fn set_up(&mut self) -> Result<(), StoreError> {
        self.session.check_usage()?;
        let elsewhere = self.session.check_reach()?;
        let Some(schema) = choose(self.session)? else {
            return Err(StoreError::no_schema());
        };
        (self.on_step)(&format!("schema {schema}"));
        if let Some(elsewhere) = elsewhere {
            (self.on_step)(&format!("a second outbox: {}", elsewhere.fact()));
        }
        let settings =
            format!("set lock_timeout = '{LOCK_TIMEOUT}'; set client_min_messages = warning");
        self.session.batch("set up the migration", &settings)?;
        self.session.take_time()
    }

    /// Lets one migration run at a time. The lock is tried again and again, because a waiting
    /// statement holds a snapshot, and building an index concurrently would wait for that.
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
                let pids: Vec<i32> = self.session.query(
                    "look who migrates",
                    "select pid from pg_locks where locktype = 'advisory' and granted and classid::bigint = $1::int \
                     and database = (select oid from pg_database where datname = current_database())",
                    &[&MIGRATION_LOCK],
                    |row| row.try_get(0),
                )?;
                let by = pids
                    .first()
                    .map_or_else(String::new, |pid| format!(" (server process {pid})"));
                (self.on_step)(&format!(
                    "another migration is running{by}: waiting for its end"
                ));
            }
            sleep_uninterruptibly(PAUSE);
        }
        Err(StoreError::timed_out(
            DOING,
            format!("another migration has been running for {TURN_ATTEMPTS} s"),
        ))
    }

    fn apply(&mut self, step: &Step, what: &str) -> Result<(), StoreError> {
        (self.on_step)(what);
        self.with_retries(|session| session.batch(DOING, step.sql))?;
        self.report.done.push(what.to_owned());
        Ok(())
    }

    /// Builds an index, concurrently with writers unless the table is empty. An invalid index that
    /// an interrupted build has left is dropped first.
    fn build_index(&mut self, step: &Step, name: &str) -> Result<(), StoreError> {
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
        let has_rows = has_rows == [true];
        let what = format!("add index {name}");
        (self.on_step)(&if has_rows {
            format!("{what}, beside the writers; it waits for the end of all older transactions")
        } else {
            what.clone()
        });
        self.with_retries(|session| {
            let there: Vec<Option<String>> = session.query(
                "look for an invalid index",
                include_str!("../../../sql/index_remains.sql"),
                &[&name, &table],
                |row| row.try_get(0),
            )?;
            match there.first().map(Option::as_deref) {
                None => {}
                Some(Some("valid")) => return Ok(()),
                Some(Some(_)) => session.batch(
                    "drop an invalid index",
                    &format!("drop index concurrently {name}"),
                )?,
                Some(None) => return Err(StoreError::name_is_taken(DOING, name)),
            }
            if has_rows {
                // No session waits for this statement. It waits for older transactions, however
                // long they are.
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

    /// Repeats work that did not get its lock in time, or was undone by a deadlock.
    fn with_retries(
        &mut self,
        mut work: impl FnMut(&mut Session) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for attempt in 1..=LOCK_ATTEMPTS {
            match work(self.session) {
                Err(error) if error.is_lock_timeout() || error.is_conflict() => {
                    if attempt == 1 {
                        let holders = self.holders()?;
                        (self.on_step)(&format!(
                            "another transaction holds the table{holders}: waiting for its end"
                        ));
                    }
                    sleep_uninterruptibly(PAUSE);
                }
                result => return result,
            }
        }
        let holders = self.holders()?;
        Err(StoreError::timed_out(
            DOING,
            format!(
                "another transaction holds the table{holders} all the time; what is done stays, and `dispatchbox migrate` again does the rest"
            ),
        ))
    }

    /// ` (server process 4711 for 130 s)`, as far as this role may see.
    fn holders(&mut self) -> Result<String, StoreError> {
        let holders: Vec<String> = self.session.query(
            "look who holds the table",
            include_str!("../../../sql/table_holders.sql"),
            &[],
            |row| row.try_get(0),
        )?;
        Ok(match holders.join(", ") {
            none if none.is_empty() => none,
            names => format!(" ({names})"),
        })
    }
}
