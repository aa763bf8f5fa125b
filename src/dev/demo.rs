//! `dispatchbox demo`: a throwaway PostgreSQL, sample events, and the real daemon at work on them.
//!
//! An interrupt, a kill or `--exit-after` leaves no process and no directory behind. Some of the
//! events fail on purpose, so that each status occurs. The daemon's log goes to a file, since a
//! line for each event would push away the output of the demo: the counts and the commands to try
//! stand last on the screen and stay there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, never, select};

use crate::dev::cluster::{Cluster, ClusterError, ServerSettings};
use crate::dev::launch::{Daemon, Launch};
use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts, schema};
use crate::system::signal::SignalThread;

/// Name of the demo's database.
const DBNAME: &str = "outbox";

/// Two worker processes, so that a person can kill one and the other one goes on.
const PROCESSES: &str = "2";

/// Longest wait for the sample events to be handled; they take a second or two.
const HANDLED_MAX: Duration = Duration::from_mins(1);

/// Pause between two looks at the table. It is also the longest time until an interrupt is
/// answered.
const LOOK: Duration = Duration::from_millis(100);

/// The daemon's log, in the directory of the server, with which it is removed.
const LOG: &str = "daemon.log";

/// Lines of the log that are shown when the daemon has ended.
const LAST_LINES: usize = 15;

/// Headings of the counts.
const TABLE_HEAD: &str = "                  pending    retry     done     dead\n";

/// Bounds of the demo's own calls.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    query: Duration::from_secs(10),
};

/// The daemon's arguments. Orders are logged and done. Invoices meet a receiver that is down, and
/// are tried again for longer than a person watches. Registrations are refused for good.
const ARGS: &[&str] = &[
    "--processes",
    PROCESSES,
    "--http-host",
    "127.0.0.1",
    "--handler-timeout",
    "3",
    "--drain-timeout",
    "5",
    "--max-attempts",
    "50",
    "--retry-backoff-seconds",
    "20",
    "--route",
    "order.*=log",
    "--route",
    "invoice.*=exec:/bin/sh -c 'echo the accounting system is down >&2; exit 1'",
    "--route",
    "user.*=exec:/bin/sh -c 'echo no such mailbox >&2; exit 65'",
];

/// The options of the demo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// Ends by itself, this long after the sample events were handled.
    pub exit_after: Option<Duration>,
    /// The HTTP port; 0 takes any free one.
    pub http_port: u16,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not start the daemon: {0}")]
    Daemon(io::Error),
    #[error("could not listen to signals: {0}")]
    Signals(io::Error),
    #[error("{0}")]
    Ended(String),
}

/// What the demo waits for.
enum DemoEvent {
    Signal,
    Listening(String),
    DaemonEnded,
    Look,
    TimeIsUp,
}

/// Runs the demo; the exit code is 0 unless something failed.
pub fn run(options: &DemoOptions) -> ExitCode {
    match show(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &DemoOptions) -> Result<(), DemoError> {
    // The signal thread starts first: an interrupt from here on ends the demo by the code below,
    // where everything is cleaned up.
    let signals = SignalThread::start().map_err(DemoError::Signals)?;
    say("starting a throwaway PostgreSQL …\n");
    let cluster = Cluster::start(&ServerSettings::volatile())?;
    let mut demo = Demo::prepare(&cluster)?;
    say(TABLE_HEAD);
    say(&demo.row("sample events")?);
    let port = options.http_port.to_string();
    let args = [ARGS, &["--http-port", &port]].concat();
    let log = cluster.directory().join(LOG);
    let daemon = Daemon::start(&Launch {
        command: "run",
        dsn: &cluster.dsn(DBNAME),
        variables: &BTreeMap::new(),
        directory: None,
        args: &args,
        log: Some(&log),
    })
    .map_err(DemoError::Daemon)?;
    // No `?` from here to the end of the daemon: it is to drain in any case.
    let watched = demo.watch(&daemon, &signals, options.exit_after);
    let stopped = daemon.stop();
    watched?;
    if let Err(why) = stopped {
        let _ = write!(io::stderr(), "{}", last_lines(&log));
        return Err(DemoError::Ended(why));
    }
    say(&format!("\n{TABLE_HEAD}"));
    say(&demo.row("in the end")?);
    say(&format!("removing {} …\n", cluster.directory().display()));
    drop(demo);
    drop(cluster);
    Ok(())
}

/// The demo's view of its database.
struct Demo<'a> {
    cluster: &'a Cluster,
    session: Session,
    url: Option<String>,
    /// The sample events were all handled once, and the commands to try were printed.
    is_introduced: bool,
    started: Instant,
}

impl<'a> Demo<'a> {
    /// Creates the database and fills it.
    fn prepare(cluster: &'a Cluster) -> Result<Demo<'a>, DemoError> {
        let create = format!("CREATE DATABASE {DBNAME}");
        connect(cluster, "postgres")?.batch("create the demo's database", &create)?;
        let mut session = connect(cluster, DBNAME)?;
        schema::migrate(&mut session, &mut |_| {})?;
        session.batch(
            "insert the sample events",
            include_str!("../../sql/insert_outbox.sql"),
        )?;
        Ok(Demo {
            cluster,
            session,
            url: None,
            is_introduced: false,
            started: Instant::now(),
        })
    }

    /// Shows what happens until the demo ends.
    fn watch(
        &mut self,
        daemon: &Daemon,
        signals: &SignalThread,
        exit_after: Option<Duration>,
    ) -> Result<(), DemoError> {
        let mut time_is_up = never();
        loop {
            let look = if self.is_introduced {
                never()
            } else {
                after(LOOK)
            };
            let event = select! {
                recv(signals.received) -> _ => DemoEvent::Signal,
                recv(daemon.urls) -> url => url.map_or(DemoEvent::DaemonEnded, DemoEvent::Listening),
                recv(look) -> _ => DemoEvent::Look,
                recv(time_is_up) -> _ => DemoEvent::TimeIsUp,
            };
            match event {
                DemoEvent::Signal | DemoEvent::DaemonEnded | DemoEvent::TimeIsUp => return Ok(()),
                DemoEvent::Listening(url) => self.url = Some(url),
                DemoEvent::Look if self.is_handled()? => {
                    self.introduce(exit_after)?;
                    time_is_up = exit_after.map_or_else(never, after);
                }
                DemoEvent::Look => {}
            }
        }
    }

    /// Says whether the daemon has handled all sample events once, or has had long enough for that.
    fn is_handled(&mut self) -> Result<bool, DemoError> {
        let [pending, ..] = self.counts()?;
        Ok(pending == 0 && self.url.is_some() || self.started.elapsed() > HANDLED_MAX)
    }

    /// Prints where to look, and which commands to try.
    fn introduce(&mut self, exit_after: Option<Duration>) -> Result<(), DemoError> {
        self.is_introduced = true;
        let handled = self.row("handled")?;
        let dead = self.a_dead_event()?;
        let url = self.url.as_deref().unwrap_or("(no HTTP port yet)");
        let end = exit_after.map_or_else(
            || "Ctrl-C ends the demo and removes everything.".to_owned(),
            |after| {
                format!(
                    "Ctrl-C ends the demo, or it ends by itself in {} s; either way everything is removed.",
                    after.as_secs_f64()
                )
            },
        );
        let psql = format!("psql '{}'", self.cluster.dsn(DBNAME));
        let log = self.cluster.directory().join(LOG);
        let log = log.display();
        say(&format!(
            "{handled}
Orders were logged, invoices wait for a receiver that is down, registrations were refused for good.
Dispatchbox listens on {url}. Open {url}/ in a browser; in another terminal, try:

  dispatchbox status --url {url}
  curl {url}/ready
  curl {url}/metrics
  curl {url}/api/dead-events
  curl -X POST {url}/api/dead-events/{dead}/retry
  {psql} -c 'SELECT id, event_type, status, attempts, last_error FROM outbox_event ORDER BY id'
  {psql} -c \"INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'order.created', '{{}}')\"
  tail -f {log}

{end}
"
        ));
        Ok(())
    }

    /// Counts the events by status, as one line of the table.
    fn row(&mut self, what: &str) -> Result<String, DemoError> {
        let [pending, retry, done, dead] = self.counts()?;
        Ok(format!("{what:16}{pending:9}{retry:9}{done:9}{dead:9}\n"))
    }

    /// Counts the events that are pending, retry, done and dead.
    fn counts(&mut self) -> Result<[i64; 4], DemoError> {
        let sql = include_str!("../../sql/demo_counts.sql");
        let counts = self.session.query("count the events", sql, &[], |row| {
            Ok([
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ])
        })?;
        Ok(*counts
            .first()
            .expect("a query without GROUP BY returns a row"))
    }

    fn a_dead_event(&mut self) -> Result<i64, DemoError> {
        let sql = "SELECT coalesce(min(id), 0) FROM outbox_event WHERE status = 'dead'";
        let ids = self
            .session
            .query("look for a dead event", sql, &[], |row| row.try_get(0))?;
        Ok(ids.first().copied().unwrap_or(0))
    }
}

/// The last lines of the daemon's log.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let n_lines = text.lines().count();
    let last = text.lines().skip(n_lines.saturating_sub(LAST_LINES));
    last.flat_map(|line| [line, "\n"]).collect()
}

fn connect(cluster: &Cluster, dbname: &str) -> Result<Session, StoreError> {
    let dsn = Dsn::parse(&cluster.dsn(dbname)).expect("the DSN of a private cluster is plain");
    store::connect(&dsn, &TIMEOUTS, "dispatchbox demo")
}

/// Writes to standard output. That the reader has closed it is no failure.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
