//! A private, throwaway PostgreSQL server for the demo, the bench and the tests.
//!
//! The server listens on a unix socket in a directory of its own, so it clashes with nothing. It
//! ends when its owner ends, in whatever way that happens. Statics are not dropped and programs get
//! killed, so the server is started by a small shell that reads a pipe which only this process
//! holds. When the pipe ends, the shell stops the server and removes the directory. Every operation
//! on the data directory goes through that shell, one command at a time, so that no operation is
//! half done when the directory is removed.
//!
//! Deliberately not here: TCP, passwords, more than one server per directory. A user that may open
//! the directory (mode 0700) may connect.

mod deadman;
mod programs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::system::process;
use deadman::Deadman;

/// The superuser of every private cluster.
const SUPERUSER: &str = "postgres";

/// Why there is no private cluster, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No directory with `initdb` and `postgres` was found.
    #[error(
        "found no PostgreSQL server programs: install them (`sudo apt-get install postgresql`), or set PG_BIN to the directory that holds `initdb` and `postgres`"
    )]
    ProgramsMissing,
    /// `PG_BIN` names a directory without them.
    #[error("found no `initdb` and `postgres` in `{}`, which PG_BIN names", .0.display())]
    PgBinWrong(PathBuf),
    /// PostgreSQL refuses to run as root.
    #[error(
        "found neither a user `postgres` nor `nobody` to run the server as: PostgreSQL refuses root, so start as another user"
    )]
    NoUserToRunAs,
    /// The cluster's directory could not be made.
    #[error("could not make the directory `{}`: {source}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The shell that watches over the server could not be started or was killed.
    #[error("could not {doing} by way of `/bin/sh`: {source}")]
    Shell {
        /// The command that the shell was to execute.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// The data directory could not be filled, or the server did not start; the log says why.
    #[error("could not {doing}, the log of the server ends with:\n{log}")]
    Refused {
        /// The command that failed.
        doing: &'static str,
        /// Last lines of the log.
        log: String,
    },
    /// A running server could not be copied.
    #[error("could not copy a running server: {0}")]
    Backup(String),
    /// The server is not running at the moment.
    #[error("the private cluster is stopped")]
    Stopped,
    /// A connection was refused.
    #[error("could not connect to the database `{dbname}` of the private cluster: {reason}")]
    Connect {
        /// Name of the database.
        dbname: String,
        /// The driver's error with all its causes.
        reason: String,
    },
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended and all data is written: `pg_ctl stop -m fast`.
    Fast,
    /// The server is killed as if the power failed, and the next start recovers: `pg_ctl stop -m
    /// immediate`.
    Immediate,
}

/// The server's parameters and environment.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    parameters: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

impl ServerSettings {
    /// Chooses speed over survival: no write is waited for that only matters after a power failure.
    /// For tests and the demo.
    ///
    /// `synchronous_commit` stays on: without fsync it costs a write, and off it would lose commits
    /// at an immediate stop as well.
    pub fn volatile() -> ServerSettings {
        ServerSettings::base()
            .with("fsync", "off")
            .with("full_page_writes", "off")
            .with("autovacuum", "off")
    }

    /// Keeps the guarantees of a real server, so that measurements mean something.
    pub fn durable() -> ServerSettings {
        ServerSettings::base()
            .with("fsync", "on")
            .with("synchronous_commit", "on")
            .with("shared_buffers", "1GB")
            .with("max_wal_size", "4GB")
    }

    /// Sets one more parameter; the last value of a name wins.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> ServerSettings {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> ServerSettings {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn base() -> ServerSettings {
        ServerSettings::default()
            .with("listen_addresses", "")
            .with("max_connections", "200")
            .with("lc_messages", "C")
            // The default since PostgreSQL 14.
            .with("password_encryption", "scram-sha-256")
    }
}

/// An initialized data directory to copy clusters from: a copy takes a tenth of the time of
/// `initdb`.
#[derive(Debug)]
pub struct Pristine {
    keeper: Deadman,
}

impl Pristine {
    /// Runs `initdb`.
    pub fn create() -> Result<Pristine, ClusterError> {
        let mut keeper = Deadman::start(&ServerSettings::default())?;
        keeper.order("initialize a data directory", "init")?;
        Ok(Pristine { keeper })
    }
}

/// A running (or for the moment stopped) private server. Dropping it ends the server and removes
/// every file of it.
#[derive(Debug)]
pub struct Cluster {
    keeper: Deadman,
    server: Option<Pid>,
}

impl Cluster {
    /// Initializes and starts a cluster.
    pub fn start(settings: &ServerSettings) -> Result<Cluster, ClusterError> {
        let mut keeper = Deadman::start(settings)?;
        keeper.order("initialize a data directory", "init")?;
        Cluster::running(keeper)
    }

    /// Starts a copy of `pristine`.
    pub fn copy_of(
        pristine: &Pristine,
        settings: &ServerSettings,
    ) -> Result<Cluster, ClusterError> {
        let mut keeper = Deadman::start(settings)?;
        let order = format!("copy {}", pristine.keeper.directory.display());
        keeper.order("copy a data directory", &order)?;
        Cluster::running(keeper)
    }

    /// Starts a hot standby of `primary`, which follows it until it is promoted (`select
    /// pg_promote()`).
    ///
    /// The copy is made by SQL, not by pg_basebackup: that one refuses servers newer than itself,
    /// and not every directory of server programs has it.
    pub fn standby_of(
        primary: &Cluster,
        settings: &ServerSettings,
    ) -> Result<Cluster, ClusterError> {
        let directory = primary.directory().display();
        let conninfo = format!("host={directory} user={SUPERUSER}");
        let settings = settings.clone().with("primary_conninfo", &conninfo);
        let mut keeper = Deadman::start(&settings)?;
        let refused = |error: postgres::Error| ClusterError::Backup(with_causes(&error));

        // The server ends a backup whose session has ended.
        let mut client = primary.client("postgres")?;
        let [begin, end] = backup_calls(&mut client).map_err(refused)?;
        client.batch_execute(begin).map_err(refused)?;
        keeper.order("copy a running server", &format!("follow {directory}"))?;
        let label: String = client.query_one(end, &[]).map_err(refused)?.get(0);

        let path = keeper.directory.join("data/backup_label");
        fs::write(&path, label)
            .map_err(|error| ClusterError::Backup(format!("{}: {error}", path.display())))?;
        Cluster::running(keeper)
    }

    /// Says where a database of this cluster is, in libpq's keyword form.
    pub fn dsn(&self, dbname: &str) -> String {
        let host = self.directory().display();
        format!("host={host} user={SUPERUSER} dbname={dbname}")
    }

    /// Connects to a database of this cluster.
    pub fn client(&self, dbname: &str) -> Result<postgres::Client, ClusterError> {
        postgres::Config::new()
            .host_path(self.directory())
            .user(SUPERUSER)
            .dbname(dbname)
            .connect(postgres::NoTls)
            .map_err(|error| ClusterError::Connect {
                dbname: dbname.to_owned(),
                reason: with_causes(&error),
            })
    }

    /// The directory of the socket, the data and the log.
    pub fn directory(&self) -> &Path {
        &self.keeper.directory
    }

    /// The postmaster, unless the cluster is stopped.
    pub fn pid(&self) -> Option<Pid> {
        self.server
    }

    /// Stops the server, also a paused one; the files stay.
    pub fn stop(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        self.resume()?;
        let signal = match mode {
            StopMode::Fast => "INT",
            StopMode::Immediate => "QUIT",
        };
        self.keeper
            .order("stop the server", &format!("stop {signal}"))?;
        self.server = None;
        Ok(())
    }

    /// Starts a stopped server again.
    pub fn start_again(&mut self) -> Result<(), ClusterError> {
        let server = self.keeper.order("start the server", "start")?;
        let server = server.ok_or_else(|| self.keeper.refused("start the server"))?;
        self.keeper.wait_ready(server)?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        self.stop(mode)?;
        self.start_again()
    }

    /// Freezes the server with all its back ends: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<(), ClusterError> {
        let server = self.server.ok_or(ClusterError::Stopped)?;
        // The postmaster is stopped first: then it forks no more and the list of its children is
        // complete.
        signal_all(&[server], Signal::STOP);
        signal_all(&back_ends(server), Signal::STOP);
        Ok(())
    }

    /// Ends a [`pause`](Cluster::pause).
    pub fn resume(&self) -> Result<(), ClusterError> {
        let server = self.server.ok_or(ClusterError::Stopped)?;
        signal_all(&back_ends(server), Signal::CONT);
        signal_all(&[server], Signal::CONT);
        Ok(())
    }

    /// Lets the server outlive this process, so that a person can look at the database of a failed
    /// test. The server ends, and its files are removed, when its postmaster (the pid is returned)
    /// gets SIGINT.
    pub fn keep(&mut self) -> Result<Pid, ClusterError> {
        self.keeper.order("keep the server", "keep")?;
        self.server.ok_or(ClusterError::Stopped)
    }

    fn running(keeper: Deadman) -> Result<Cluster, ClusterError> {
        let mut cluster = Cluster {
            keeper,
            server: None,
        };
        cluster.start_again()?;
        Ok(cluster)
    }
}

/// The statements that begin and end a copy of the files of a running server; PostgreSQL 15 has
/// renamed the functions.
fn backup_calls(client: &mut postgres::Client) -> Result<[&'static str; 2], postgres::Error> {
    let version = "select current_setting('server_version_num')::integer";
    Ok(
        if client.query_one(version, &[])?.get::<_, i32>(0) < 150_000 {
            [
                "select pg_start_backup('standby', true, false)",
                "select labelfile from pg_stop_backup(false, false)",
            ]
        } else {
            [
                "select pg_backup_start('standby', true)",
                "select labelfile from pg_backup_stop(false)",
            ]
        },
    )
}

fn back_ends(server: Pid) -> Vec<Pid> {
    process::children(server.as_raw_nonzero().get().unsigned_abs())
        .into_iter()
        .filter_map(|child| Pid::from_raw(i32::try_from(child).ok()?))
        .collect()
}

fn signal_all(pids: &[Pid], signal: Signal) {
    for &pid in pids {
        // A process that has just ended needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Renders an error with its causes: the driver's own text is only "db error".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
