//! What ends when the server does not answer the keeper.

use crate::support::{Daemon, Proxy, TestDb, process, wait_until};

/// Goal: a worker that drains waits for its keeper no longer than the drain may take. Method: the
/// server falls silent for the keeper's connection alone, and the supervisor, which would end the
/// worker, is gone.
#[test]
fn a_keeper_that_gets_no_answer_does_not_outlast_the_drain() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    // Only keepers ask this.
    proxy.silence_request("expires_at < clock_timestamp()");
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route("*=log")
        .args(["--drain-timeout", "1", "--lease-seconds", "4"])
        .start();
    let worker = daemon.wait_workers(1)[0];
    db.insert_events("order.created", 1);
    wait_until("the event is done", || db.count("done") == 1);
    wait_until("the keeper waits for an answer", || proxy.has_lost());

    daemon.kill();

    wait_until("the worker is gone", || !process::is_alive(worker));
}
