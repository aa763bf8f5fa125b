//! A server whose disk is full.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{assert_done_at_first_attempt, assert_no_outcome_missed, wait_all_done, wait_runs};
use crate::support::{Daemon, Receiver, TestDb, TestDir, cluster, outlast, wait_until};

/// A file system of a few megabytes, mounted where only one process sees it: nothing of it is left
/// when that process ends, however the test does.
struct SmallDisk {
    holder: Child,
    mount_point: TestDir,
}

impl SmallDisk {
    /// Mounts one for the user of this server. Fails, with what the system says, where this user
    /// may not mount: as root it needs CAP_SYS_ADMIN, as another user a user namespace.
    fn of_megabytes(n: u32, db: &TestDb) -> SmallDisk {
        let mount_point = TestDir::new();
        let owner = fs::metadata(db.directory()).unwrap();
        let (uid, gid) = (owner.uid(), owner.gid());
        let is_root = rustix::process::geteuid().is_root();
        // The server reaches the mount through /proc, which asks for the same user.
        let (namespaces, user, options) = if is_root {
            let user = format!("setpriv --reuid={uid} --regid={gid} --clear-groups");
            (vec!["--mount"], user, format!(",uid={uid},gid={gid}"))
        } else {
            let namespaces = vec!["--user", "--map-root-user", "--mount"];
            (namespaces, String::new(), String::new())
        };
        let script = format!(
            "mount -t tmpfs -o size={n}m,mode=0700{options} tmpfs {} && echo mounted && exec {user} cat",
            mount_point.path().display()
        );
        let mut holder = Command::new("unshare")
            .args(namespaces)
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = holder.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        if said != "mounted\n" {
            let mut why = String::new();
            let stderr = holder.stderr.as_mut().unwrap();
            stderr.read_to_string(&mut why).unwrap();
            panic!("this user may not mount a small file system, which the test needs: {why}");
        }
        let disk = SmallDisk {
            holder,
            mount_point,
        };
        wait_until("the holder has become the server's user", || {
            fs::metadata(format!("/proc/{}", disk.holder.id())).is_ok_and(|of| of.uid() == uid)
        });
        disk
    }

    /// Where the server finds it.
    fn path(&self) -> String {
        let mount_point = self.mount_point.path().display();
        format!("/proc/{}/root{mount_point}", self.holder.id())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Goal: a full disk is an outage like any other: nothing is lost, charged or run again, nobody
/// asks in a busy loop, and work goes on when there is room. Method: the tables lie in a tablespace
/// of four megabytes that another table fills.
#[test]
fn a_full_disk_of_the_server_costs_no_event_and_no_second_run() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let disk = SmallDisk::of_megabytes(4, &db);
    db.execute(&format!(
        "create tablespace small location '{}'",
        disk.path()
    ));
    db.execute("alter table all in tablespace pg_default set tablespace small");
    db.execute("alter index all in tablespace pg_default set tablespace small");
    let mut ids = db.insert_events("order.created", 600);
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(5));
    let mut daemon = Daemon::new(&db)
        .route(receiver.route("*"))
        .args(["--max-parallel", "4", "--poll-interval", "0.05"])
        .start();
    let n_errors = |daemon: &crate::support::RunningDaemon| {
        daemon
            .metric("dispatchbox_db_errors_total", &[])
            .unwrap_or(0.0)
    };
    wait_runs(50, || receiver.history());

    db.execute("create table filler (x text) tablespace small");
    let fill = "insert into filler select repeat('x', 1900) from generate_series(1, 10000)";
    let refused = db.client().batch_execute(fill).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "53100", "{refused}");
    let since = Instant::now();
    wait_until("claims and outcomes are refused for lack of room", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "disk_full")]) >= Some(4.0)
    });
    wait_until("it is not ready", || daemon.get("/ready").0 == 503);
    assert_eq!(daemon.get("/health").0, 200);
    assert!(db.count("done") < 600);
    outlast(since, Duration::from_secs(4), "the disk is full");
    // Fetcher, settler and keeper ask at most once a second after a few quick tries.
    let n_asked_most = 3.0 * (8.0 + since.elapsed().as_secs_f64());
    let n_asked = n_errors(&daemon);
    db.execute("drop table filler");
    ids.extend(db.insert_events("order.created", 20));

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert!(
        n_asked <= n_asked_most,
        "{n_asked} failed calls, at most {n_asked_most} are expected\n{}",
        daemon.log()
    );
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    receiver.history().assert_complete(ids, 0);
    assert!(super::lines_with(&daemon, "WARN") < 12, "{}", daemon.log());
    // The server's last files go while its disk is still there.
    server
        .stop(dispatchbox::dev::cluster::StopMode::Immediate)
        .unwrap();
}
