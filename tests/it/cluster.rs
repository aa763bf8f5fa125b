//! The private cluster: what it promises to the demo, the bench and these tests.

use std::process::Command;

use dispatchbox::dev::cluster::{Cluster, ServerSettings, StopMode};

use crate::support::{cluster, process, wait_until};

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_directory() {
    let cluster = cluster::private();
    let directory = cluster.directory().to_owned();
    let server = cluster.pid().unwrap().as_raw_nonzero().get();
    let server = u32::try_from(server).unwrap();
    assert!(directory.exists() && process::is_alive(server));

    drop(cluster);

    assert!(!directory.exists());
    assert!(!process::is_alive(server));
}

#[test]
fn a_cluster_is_initialized_without_a_pristine_copy_too() {
    let cluster = Cluster::start(&ServerSettings::volatile()).unwrap();

    let mut client = cluster.client("postgres").unwrap();

    let encoding: String = client
        .query_one("SHOW server_encoding", &[])
        .unwrap()
        .get(0);
    assert_eq!(encoding, "UTF8");
}

#[test]
fn committed_rows_survive_both_ways_to_restart() {
    for mode in [StopMode::Fast, StopMode::Immediate] {
        let mut cluster = cluster::private();
        let mut client = cluster.client("postgres").unwrap();
        client
            .batch_execute("CREATE TABLE t (i int); INSERT INTO t VALUES (7)")
            .unwrap();

        cluster.restart(mode).unwrap();

        assert!(client.batch_execute("SELECT 1").is_err(), "{mode:?}");
        let row = cluster.client("postgres").unwrap();
        let i: i32 = { row }.query_one("SELECT i FROM t", &[]).unwrap().get(0);
        assert_eq!(i, 7, "{mode:?}");
    }
}

#[test]
fn a_stopped_cluster_refuses_connections_until_it_is_started_again() {
    let mut cluster = cluster::private();

    cluster.stop(StopMode::Fast).unwrap();

    assert!(cluster.client("postgres").is_err());
    assert_eq!(cluster.pid(), None);
    cluster.start_again().unwrap();
    assert!(cluster.client("postgres").is_ok());
}

#[test]
fn a_paused_cluster_answers_only_after_it_is_resumed() {
    let cluster = cluster::private();
    let mut client = cluster.client("postgres").unwrap();

    cluster.pause().unwrap();

    let asking = std::thread::spawn(move || client.batch_execute("SELECT 1").is_ok());
    let server = cluster.pid().unwrap().as_raw_nonzero().get();
    wait_until("the postmaster and its children are stopped", || {
        let server = u32::try_from(server).unwrap();
        let mut pids = process::children(server);
        pids.push(server);
        pids.into_iter().all(process::is_stopped)
    });
    assert!(!asking.is_finished());
    cluster.resume().unwrap();
    assert!(asking.join().unwrap());
}

#[test]
fn a_paused_cluster_is_removed_as_well() {
    let cluster = cluster::private();
    let _client = cluster.client("postgres").unwrap();
    let directory = cluster.directory().to_owned();
    cluster.pause().unwrap();

    drop(cluster);

    assert!(!directory.exists());
}

#[test]
fn parameters_reach_the_server() {
    let cluster = cluster::private_with(&ServerSettings::volatile().with("max_connections", "15"));

    let mut client = cluster.client("postgres").unwrap();

    let max: String = client
        .query_one("SHOW max_connections", &[])
        .unwrap()
        .get(0);
    assert_eq!(max, "15");
}

#[test]
fn a_server_that_does_not_start_is_an_error_with_its_log() {
    let settings = ServerSettings::volatile().with("no_such_parameter", "1");

    let err = Cluster::copy_of(cluster::pristine(), &settings).unwrap_err();

    assert!(err.to_string().contains("no_such_parameter"), "{err}");
}

#[test]
fn a_server_outlives_neither_a_kill_of_its_owner_nor_its_directory() {
    // This test binary is the owner to be killed: it is started once more, for the helper below
    // alone.
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "cluster::helper_that_owns_a_cluster",
            "--nocapture",
        ])
        .env("DISPATCHBOX_TEST_OWNER", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(owner.stdout.take().unwrap());
    let directory = std::io::BufRead::lines(lines)
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("cluster in ")?.1.to_owned()))
        .unwrap();
    assert!(std::path::Path::new(&directory).exists());

    owner.kill().unwrap();
    owner.wait().unwrap();

    wait_until("the directory is gone", || {
        !std::path::Path::new(&directory).exists()
    });
}

/// Does nothing unless the test above starts it.
#[test]
fn helper_that_owns_a_cluster() {
    use std::io::Write as _;
    if std::env::var_os("DISPATCHBOX_TEST_OWNER").is_none() {
        return;
    }
    let cluster = cluster::private();
    writeln!(
        std::io::stdout(),
        "cluster in {}",
        cluster.directory().display()
    )
    .unwrap();
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}
