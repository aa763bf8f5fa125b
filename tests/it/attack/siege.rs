//! A daemon under attack, what its /health says meanwhile, and what is left of it afterwards.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Daemon, RunningDaemon, TestDb, wait, wait_until, wait_until_within};

/// An answer of /health that takes longer does not count.
const HEALTH_MAX: Duration = Duration::from_secs(1);

/// Between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// How long each attack goes on at least.
const ATTACK: Duration = Duration::from_millis(1500);

/// So many probes are wanted, or one hiccup of the machine would decide; a slow machine is not
/// waited for longer than this.
const PROBES: usize = 100;
const ATTACK_MAX: Duration = Duration::from_secs(4);

/// Attackers that mostly wait: more than there are places, so that they take them from each other
/// and from everybody else.
const WAITING: usize = 200;

/// Attackers that are always busy: enough for both cores of a small machine. With more of them, how
/// its time is shared out would be measured, and not the guard.
const BUSY: usize = 3;

/// Idle threads of the server behind the guard stay for five seconds.
const RECOVERY: Duration = Duration::from_secs(20);

/// Memory that the allocator keeps for the next one is no leak.
const MEMORY_KEPT_KIB: u64 = 24 * 1024;

/// What an attack may use.
pub struct Target {
    pub port: u16,
    is_over: AtomicBool,
}

impl Target {
    /// Says whether it is time to stop.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    threads: usize,
    descriptors: usize,
    memory_kib: u64,
}

impl Footprint {
    fn of(pid: u32) -> Footprint {
        let count = |directory: &str| {
            fs::read_dir(format!("/proc/{pid}/{directory}"))
                .unwrap()
                .count()
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        Footprint {
            threads: count("task"),
            descriptors: count("fd"),
            memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

/// A daemon that will be attacked.
pub struct Siege {
    pub daemon: RunningDaemon,
    pub db: TestDb,
    before: Footprint,
}

impl Siege {
    /// Starts one, and waits until it is ready and all its threads have been used.
    pub fn begin() -> Siege {
        let mut siege = Siege::with(|daemon| daemon);
        siege.open_api_connections();
        siege
    }

    /// The same, started in some special way.
    pub fn with(how: impl FnOnce(Daemon) -> Daemon) -> Siege {
        let db = TestDb::new();
        let daemon = how(Daemon::new(&db).route("*=log"))
            // As in systemd/dispatchbox.service.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .start();
        daemon.wait_ready();
        for path in ["/metrics", "/api/dead-events", "/ready"] {
            assert_eq!(daemon.get(path).0, 200, "{path}");
        }
        let before = Footprint::of(daemon.pid());
        Siege { daemon, db, before }
    }

    /// Lets the API open all the connections that it may keep for a while, so that they count as
    /// what was there before.
    fn open_api_connections(&mut self) {
        const CALLS: i64 = 4;
        let mut client = self.db.client();
        let mut lock = client.transaction().unwrap();
        lock.execute("lock table outbox_event in access exclusive mode", &[])
            .unwrap();
        thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLS)
                .map(|_| scope.spawn(|| self.daemon.get("/api/dead-events")))
                .collect();
            let open = "select count(*) from pg_stat_activity \
                        where datname = current_database() and application_name = 'dispatchbox api'";
            wait_until("all calls have a connection", || {
                self.db.number(open, &[]) == CALLS
            });
            lock.rollback().unwrap();
            for call in calls {
                call.join().unwrap();
            }
        });
        self.before = Footprint::of(self.daemon.pid());
    }

    /// Attacks with many at once that mostly wait, each over and over, while somebody looks at
    /// /health; then looks at what is left.
    #[track_caller]
    pub fn attack(&self, what: &str, attack: impl Fn(&Target) + Sync) {
        self.attack_by(WAITING, what, attack);
        self.check_recovery(what);
    }

    /// The same, with fewer: still more than there are places, where there are few of these.
    #[track_caller]
    pub fn attack_of_fewer(&self, what: &str, attack: impl Fn(&Target) + Sync) {
        self.attack_by(WAITING / 2, what, attack);
        self.check_recovery(what);
    }

    /// The same, with a few that are always busy.
    #[track_caller]
    pub fn flood(&self, what: &str, attack: impl Fn(&Target) + Sync) {
        self.attack_by(BUSY, what, attack);
        self.check_recovery(what);
    }

    /// An attack under conditions that are to be ended before the look at what is left.
    #[track_caller]
    pub fn attack_while(&self, what: &str, attack: impl Fn(&Target) + Sync) {
        self.attack_by(WAITING, what, attack);
    }

    #[track_caller]
    fn attack_by(&self, n_attackers: usize, what: &str, attack: impl Fn(&Target) + Sync) {
        let target = Target {
            port: self.daemon.http_port(),
            is_over: AtomicBool::new(false),
        };
        let mut probes: Vec<Result<Duration, String>> = Vec::new();
        thread::scope(|scope| {
            for _ in 0..n_attackers {
                scope.spawn(|| {
                    while !target.is_over() {
                        attack(&target);
                    }
                });
            }
            let since = Instant::now();
            while since.elapsed() < ATTACK
                || (probes.len() < PROBES && since.elapsed() < ATTACK_MAX)
            {
                probes.push(probe(target.port));
                wait::pause(PROBE_PAUSE);
            }
            target.is_over.store(true, Ordering::Relaxed);
        });
        let good: Vec<Duration> = probes.iter().flatten().copied().collect();
        self.report(what, &probes, &good);
        assert!(probes.len() >= 5, "{what}: {probes:?}");
        assert!(
            good.len() * 100 >= probes.len() * 95,
            "{what}: {} of {} probes were answered; the others: {:?}",
            good.len(),
            probes.len(),
            probes
                .iter()
                .filter_map(|probe| probe.as_ref().err())
                .collect::<Vec<_>>()
        );
        assert!(!self.daemon.log().contains("panic"), "{what}");
    }

    /// Figures for whoever runs the test with `--nocapture`.
    fn report(&self, what: &str, probes: &[Result<Duration, String>], good: &[Duration]) {
        let now = Footprint::of(self.daemon.pid());
        let mut sorted = good.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let last = sorted.len().checked_sub(1)?;
            sorted.get(last * percent / 100).copied()
        };
        eprintln!(
            "{what}: {} of {} probes within 1 s, median {:?}, 95 % {:?}, slowest {:?}; at its end {now:?}, before {:?}",
            good.len(),
            probes.len(),
            at(50).unwrap_or_default(),
            at(95).unwrap_or_default(),
            at(100).unwrap_or_default(),
            self.before,
        );
    }

    /// Threads, descriptors and memory are back, and events are delivered.
    #[track_caller]
    pub fn check_recovery(&self, what: &str) {
        let pid = self.daemon.pid();
        wait_until_within(
            RECOVERY,
            &format!("{what}: everything is given back"),
            || {
                let now = Footprint::of(pid);
                now.threads <= self.before.threads
                    && now.descriptors <= self.before.descriptors
                    && now.memory_kib <= self.before.memory_kib + MEMORY_KEPT_KIB
            },
        );
        let done = self.db.count("done");
        self.db.insert_events("order.created", 1);
        wait_until("an event is delivered", || {
            self.db.count("done") == done + 1
        });
    }
}

/// Asks for /health as a balancer does: how long the answer took, or what came instead of it.
fn probe(port: u16) -> Result<Duration, String> {
    let since = Instant::now();
    let answer = ask(port).map_err(|error| format!("{error} after {:?}", since.elapsed()))?;
    let took = since.elapsed();
    let is_good = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#);
    if is_good && took <= HEALTH_MAX {
        Ok(took)
    } else {
        Err(format!("{answer:?} after {took:?}"))
    }
}

fn ask(port: u16) -> io::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_MAX)?;
    stream.set_read_timeout(Some(HEALTH_MAX))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
