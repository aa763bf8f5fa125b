//! `dispatchbox chaos`: the real daemon, twice, on a throwaway PostgreSQL, while everything that
//! can break is broken; and the laws that must hold all the same.
//!
//! Producers write events all the time, and roll some back. Handlers succeed, fail, panic, refuse,
//! take longer than the lease, and kill their worker, as the type of the event says, so it is known
//! beforehand what each must come to. A schedule, the same for the same seed, kills and freezes
//! workers and daemons, restarts, crashes and freezes the server, cuts connections and locks rows.
//! In the end all faults are over, what is left is drained, the daemons are stopped, and the record
//! of the handlers is compared with the table (`checker.rs` has the laws).
//!
//! What the schedule meets depends on the machine: the same seed kills at the same moment, and what
//! is killed then may have other events in hand. So a broken law names the events, and the logs and
//! the record stay.
//!
//! That the laws can be broken is shown by `--sql`: with a function of the schema that lacks its
//! protection, the chaos fails (`tests/it/chaos_command.rs`).

mod checker;
mod fleet;
mod handler;
mod history;
mod kind;
mod plan;
mod producer;
mod report;
mod runs;
mod stage;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::dev::cluster::{Cluster, ClusterError, ServerSettings};
use crate::store::dsn::Dsn;
use crate::store::{Session, StoreError, schema};
use crate::system::process::become_subreaper;
use crate::system::signal::SignalThread;

use checker::{Evidence, Law, Row};
use fleet::{Fleet, MAX_PARALLEL, Place};
use kind::Kind;
use producer::{Produced, Producer};
use report::Report;
use stage::{Stage, connect};

pub(crate) use handler::CHAOS_DAEMON;
pub use handler::with_play;
pub use plan::Fault;

/// Name of the throwaway database.
const DBNAME: &str = "outbox";

/// Pause between two looks at the schedule.
const LOOK: Duration = Duration::from_millis(20);

/// Pause between two looks at what has to be drained yet.
const DRAIN_LOOK: Duration = Duration::from_millis(300);

/// Pause between two looks whether a drain is in vain, for which the whole record is read.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// The longest time of a drain in which no event ends. A worker that crashes again and again is
/// started after 30 s at last.
const STALLED_MAX: Duration = Duration::from_secs(75);

/// The options of a chaos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaosOptions {
    /// How long faults are played.
    pub length: Duration,
    /// Chooses the schedule.
    pub seed: u64,
    /// The faults that are played.
    pub faults: Vec<Fault>,
    /// Statements that are run after the migration.
    pub sql: Option<String>,
    /// Keeps the logs and the record also where every law held.
    pub is_kept: bool,
}

/// Why a chaos has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChaosError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not play: {0}")]
    Io(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// The result of a chaos.
pub(crate) struct Found {
    /// The report.
    pub(crate) text: String,
    /// Every law held.
    pub(crate) is_lawful: bool,
}

/// Plays a schedule and checks what came of it.
pub(crate) fn run(options: &ChaosOptions) -> Result<Found, ChaosError> {
    let signals = SignalThread::start()?;
    // Workers whose supervisor is killed are still seen.
    become_subreaper();
    progress(&format!("seed {}: starting …", options.seed));
    let mut scene = Scene::set(options)?;
    let played = scene.play(options, &signals.received);
    progress("");
    let evidence = match played {
        Ok(evidence) => evidence,
        Err(error) => {
            // What is frozen would neither end nor be noticed. Where this fails, too, the first
            // error is the one to tell.
            let _ = scene.stage.end_all();
            scene.stage.fleet.kill();
            return Err(error);
        }
    };
    let laws = evidence.evidence.check();
    let is_lawful = laws.iter().all(|law| law.n_broken == 0);
    let kept = (!is_lawful || options.is_kept).then(|| scene.directory.keep());
    let report = Report {
        options,
        played: &scene.stage.played,
        evidence: &evidence.evidence,
        n_failed: evidence.n_failed,
        laws: &laws,
        kept,
    };
    Ok(Found {
        text: report.text(),
        is_lawful,
    })
}

/// Everything that takes part.
struct Scene {
    stage: Stage,
    producers: Vec<Producer>,
    // Dropped last: the daemons keep their files in it.
    directory: Directory,
}

struct Recorded {
    evidence: Evidence,
    n_failed: usize,
}

impl Scene {
    fn set(options: &ChaosOptions) -> Result<Scene, ChaosError> {
        let directory = Directory::make()?;
        let history = directory.path.join("history");
        File::create(&history)?;
        let config = directory.path.join("chaos.toml");
        fs::write(&config, handler::configuration(&history))?;
        let settings = ServerSettings::volatile().with("autovacuum", "on");
        let cluster = Cluster::start(&settings)?;
        let dsn = prepare(&cluster, options.sql.as_deref())?;
        let fleet = Fleet::start(Place {
            dsn: cluster.dsn(DBNAME),
            variables: BTreeMap::from([(
                handler::HISTORY.to_owned(),
                history.display().to_string(),
            )]),
            config,
            directory: directory.path.clone(),
        })?;
        let producers = [false, true].map(|is_slow| {
            let seed = options.seed.wrapping_add(u64::from(is_slow));
            Producer::start(dsn.clone(), seed, is_slow)
        });
        let steps = plan::plan(options.seed, &options.faults, options.length);
        Ok(Scene {
            producers: producers.into_iter().collect::<io::Result<_>>()?,
            stage: Stage::new(cluster, fleet, dsn, steps),
            directory,
        })
    }

    /// Plays the whole schedule, or up to the first signal; a second one ends it at once.
    fn play(
        &mut self,
        options: &ChaosOptions,
        signals: &Receiver<i32>,
    ) -> Result<Recorded, ChaosError> {
        let started = Instant::now();
        while started.elapsed() < options.length || !self.stage.is_over() {
            self.stage.look()?;
            progress(&format!(
                "seed {}: {} of {} s …",
                options.seed,
                started.elapsed().as_secs(),
                options.length.as_secs()
            ));
            if signals.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.stage.end_all()?;
        let produced: Vec<Produced> = self.producers.drain(..).map(Producer::stop).collect();
        self.drain(signals)?;
        progress("stopping …");
        let bad_ends = self.stage.fleet.stop();
        let mut evidence = self.evidence(bad_ends)?;
        let mut n_failed = 0;
        for part in produced {
            evidence.committed.extend(part.committed);
            evidence.rolled_back.extend(part.rolled_back);
            n_failed += part.n_failed;
        }
        Ok(Recorded { evidence, n_failed })
    }

    /// Waits until every event has ended, or none does any more.
    fn drain(&mut self, signals: &Receiver<i32>) -> Result<(), ChaosError> {
        let mut session = None;
        let mut least = i64::MAX;
        let mut progressed = Instant::now();
        let mut checked = Instant::now();
        loop {
            self.stage.look()?;
            let waiting = waiting(&mut session, &self.stage.dsn);
            if let Some((events, leases)) = waiting {
                progress(&format!("draining {events} events …"));
                if events + leases == 0 && self.stage.fleet.is_whole() {
                    return Ok(());
                }
                if events + leases < least {
                    (least, progressed) = (events + leases, Instant::now());
                }
            }
            if progressed.elapsed() > STALLED_MAX {
                return Ok(());
            }
            if checked.elapsed() > CHECK_EVERY {
                if self.is_charge_missing()? {
                    return Ok(());
                }
                checked = Instant::now();
            }
            if signals.recv_timeout(DRAIN_LOOK) != Err(RecvTimeoutError::Timeout) {
                return Err(ChaosError::Interrupted);
            }
        }
    }

    /// Says whether it is known already that a law was broken which lets a drain last for ever: an
    /// event that kills its worker, and is not charged for it, does so for ever.
    fn is_charge_missing(&mut self) -> Result<bool, ChaosError> {
        let Ok(mut session) = connect(&self.stage.dsn) else {
            return Ok(false);
        };
        let Ok(rows) = rows(&mut session) else {
            return Ok(false);
        };
        let evidence = self.recorded(rows)?;
        let is_charged = |law: &Law| law.name != checker::CHARGED || law.n_broken == 0;
        Ok(!evidence.check().iter().all(is_charged))
    }

    fn recorded(&self, rows: Vec<Row>) -> Result<Evidence, ChaosError> {
        let mut evidence = Evidence {
            entries: history::read(&self.directory.path.join("history"))?,
            rows,
            hit: self.stage.hit.clone(),
            max_parallel: MAX_PARALLEL,
            ..Evidence::default()
        };
        evidence.note_crashes();
        Ok(evidence)
    }

    fn evidence(&mut self, bad_ends: Vec<String>) -> Result<Evidence, ChaosError> {
        let left = self.stage.fleet.left();
        let mut session = connect(&self.stage.dsn)?;
        let rows = rows(&mut session)?;
        let (_, leases) = look(&mut session)?;
        let evidence = self.recorded(rows)?;
        Ok(Evidence {
            leases: usize::try_from(leases).unwrap_or_default(),
            left,
            bad_ends,
            ..evidence
        })
    }
}

/// Makes the database with its tables, and returns where it is.
fn prepare(cluster: &Cluster, sql: Option<&str>) -> Result<Dsn, ChaosError> {
    let dsn =
        |dbname| Dsn::parse(&cluster.dsn(dbname)).expect("the DSN of a private cluster is plain");
    let create = format!("create database {DBNAME}");
    connect(&dsn("postgres"))?.batch("make a database", &create)?;
    let dsn = dsn(DBNAME);
    let mut session = connect(&dsn)?;
    schema::migrate(&mut session, &mut |_| {})?;
    if let Some(sql) = sql {
        session.batch("run the statements of --sql", sql)?;
    }
    Ok(dsn)
}

/// Counts what has not ended, if the server answers.
fn waiting(session: &mut Option<Session>, dsn: &Dsn) -> Option<(i64, i64)> {
    if session.is_none() {
        *session = connect(dsn).ok();
    }
    let counts = look(session.as_mut()?);
    if counts.is_err() {
        *session = None;
    }
    counts.ok()
}

/// Counts the events that have not ended, and the leases.
fn look(session: &mut Session) -> Result<(i64, i64), StoreError> {
    let sql = include_str!("../../../sql/chaos_waiting.sql");
    let counts = session.query("count what waits", sql, &[], |row| {
        Ok((row.try_get(0)?, row.try_get(1)?))
    })?;
    Ok(*counts.first().expect("a query without FROM returns a row"))
}

fn rows(session: &mut Session) -> Result<Vec<Row>, StoreError> {
    let sql = include_str!("../../../sql/chaos_result.sql");
    session.query("read the result", sql, &[], |row| {
        let attempts: i32 = row.try_get(3)?;
        Ok(Row {
            id: row.try_get(0)?,
            kind: Kind::of(row.try_get(1)?),
            status: row.try_get(2)?,
            attempts: u32::try_from(attempts).unwrap_or_default(),
        })
    })
}

/// The directory of the logs and the record. It is removed in the end unless it is kept.
struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    fn make() -> io::Result<Directory> {
        let name = format!("dispatchbox-chaos-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory {
            path,
            is_kept: false,
        })
    }

    fn keep(&mut self) -> &Path {
        self.is_kept = true;
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed is in a directory for temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Shows the step under way, on a terminal only.
fn progress(what: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}
