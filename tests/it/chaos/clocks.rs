//! Clocks that jump by an hour: those of two daemons, and that of the database.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dispatchbox::dev::cluster::ServerSettings;

use super::{assert_done_at_first_attempt, wait_runs};
use crate::support::{Daemon, Recorder, RunningDaemon, TestDb, TestDir, cluster, wait_until};

/// An hour ahead of the real time.
const AHEAD: &str = "+3600";

/// An hour behind it.
const BEHIND: &str = "-3600";

/// The database's time, in seconds.
const NOW: &str = "select extract(epoch from clock_timestamp())::bigint";

/// Leases that end later than this.
const RENEWED: &str =
    "select count(*) from outbox_lease where expires_at > to_timestamp($1::bigint)";

/// A clock that a test sets, for the programs in whose environment its variables are. Durations are
/// real ones for them, as for every program: what jumps is what the date tells.
struct Clock {
    directory: TestDir,
}

impl Clock {
    fn new() -> Clock {
        let directory = TestDir::new();
        // The server may run as a user of its own.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Clock { directory };
        clock.set("+0");
        clock
    }

    /// Sets it to so many seconds before or after the real time; programs see it within a second.
    fn set(&self, offset: &str) {
        let draft = self.directory.file("draft");
        fs::write(&draft, offset).unwrap();
        fs::rename(draft, self.directory.file("offset")).unwrap();
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.directory.file("offset")),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// Where the distribution puts libfaketime.
fn library() -> String {
    let places = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", ""];
    places
        .map(|place| format!("/usr/lib/{place}faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime is missing: run scripts/install-test-tools")
}

/// Goal: a clock that is wrong or jumps on a daemon's host changes nothing that it does. Method:
/// two daemons, of which one jumps an hour ahead and one an hour back while their handlers run.
#[test]
fn daemons_whose_clocks_jump_apart_go_on_as_before() {
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let clocks = [Clock::new(), Clock::new()];
    let mut daemons = clocks.each_ref().map(|clock| {
        let variables = clock.variables().into_iter();
        variables
            .fold(Daemon::new(&db), |daemon, (name, value)| {
                daemon.env(name, value)
            })
            .route(recorder.route("*"))
            .args(["--lease-seconds", "4", "--max-parallel", "4"])
            .args(["--poll-interval", "0.05"])
            .start()
    });
    for daemon in &daemons {
        daemon.wait_ready();
    }
    let mut ids = db.insert_events("order.created", 12);
    recorder.wait_runs(8);

    clocks[0].set(AHEAD);
    clocks[1].set(BEHIND);
    let renewed =
        "select coalesce(min(extract(epoch from expires_at) * 1e6), 0)::bigint from outbox_lease";
    for _ in 0..2 {
        let before = db.number(renewed, &[]);
        wait_until("each lease is renewed", || db.number(renewed, &[]) > before);
    }
    recorder.open_gate();
    ids.extend(db.insert_events("order.created", 12));

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
    let [ahead, behind] = daemons.each_ref().map(dates);
    assert!(
        ahead.1 > ahead.0 && behind.1 < behind.0,
        "{ahead:?} {behind:?}"
    );
    // Two hours lie between the ends of the two.
    assert!(ahead.1[..13] > behind.1[..13], "{ahead:?} {behind:?}");
}

/// The dates of the first and of the last line of a log.
fn dates(daemon: &RunningDaemon) -> (String, String) {
    let log = daemon.log();
    let date = |line: Option<&str>| line.unwrap().split_once(' ').unwrap().0.to_owned();
    (date(log.lines().next()), date(log.lines().last()))
}

/// Goal: a database whose clock jumps ahead, so that every lease is over at once, takes no event
/// from a living worker, and one whose clock is set back keeps none. Method: handlers run over both
/// jumps; other workers look for expired leases meanwhile.
#[test]
fn a_database_whose_clock_jumps_takes_no_event_from_a_living_worker() {
    let clock = Clock::new();
    let settings = clock
        .variables()
        .into_iter()
        .fold(ServerSettings::volatile(), |settings, (name, value)| {
            settings.with_variable(name, &value)
        });
    let server = cluster::private_with(&settings);
    let db = TestDb::on(&server);
    let (held, quick) = (Recorder::new().gated(), Recorder::new());
    let start = || {
        Daemon::new(&db)
            .route(held.route("held.*"))
            .route(quick.route("*"))
            .args(["--lease-seconds", "4", "--max-parallel", "4"])
            .args(["--poll-interval", "0.05", "--retry-backoff-seconds", "0.05"])
            .args(["--processes", "3"])
            .start()
    };
    let mut daemons = [start(), start()];
    for daemon in &daemons {
        daemon.wait_ready();
    }
    let mut ids = db.insert_events("held.created", 2);
    held.wait_runs(2);
    let began = db.number(NOW, &[]);

    // Several times, since each time the living worker may be the first to look.
    for hours in 1..=4 {
        let jumped = began + hours * 3600 - 100;
        clock.set(&format!("+{}", hours * 3600));
        wait_until("the database's clock has jumped", || {
            db.number(NOW, &[]) >= jumped
        });
        wait_until("all leases are renewed by the new time", || {
            db.number(RENEWED, &[&jumped]) == db.leases()
        });
    }
    ids.extend(db.insert_events("order.created", 3));
    wait_runs(3, || quick.history());
    wait_until("what came then is done", || db.count("done") == 3);
    clock.set("+0");
    wait_until("the database's clock is set back", || {
        db.number(NOW, &[]) < began + 3000
    });
    ids.extend(db.insert_events("order.created", 3));
    wait_until("what came since is done", || db.count("done") == 6);
    held.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    assert_eq!(held.history().len() + quick.history().len(), ids.len());
}
