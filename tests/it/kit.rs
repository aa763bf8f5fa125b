//! The support's own laws: a checker that cannot fail proves nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::support::exchange::metric_in;
use crate::support::{Browser, History, Receiver, Recorder, TestDb, process, wait_until};

#[test]
fn every_test_has_a_database_of_its_own() {
    let (one, two) = (TestDb::new(), TestDb::new());

    one.execute("CREATE TABLE only_in_one (i int)");

    let there = "SELECT count(*) FROM pg_class WHERE relname = 'only_in_one'";
    assert_eq!(one.number(there, &[]), 1);
    assert_eq!(two.number(there, &[]), 0);
}

#[test]
fn a_dropped_database_is_gone_even_while_somebody_is_connected() {
    let (gone, other) = (TestDb::new(), TestDb::new());
    let name = gone.name().to_owned();
    let there = "SELECT count(*) FROM pg_database WHERE datname = $1";
    let _connected = gone.client();
    assert_eq!(other.number(there, &[&name]), 1);

    drop(gone);

    assert_eq!(other.number(there, &[&name]), 0);
}

#[test]
fn a_history_tells_what_was_lost_and_what_came_twice() {
    let history = History::parse("1 1\n2 1\n2 2\n1 1\n4 1\n");

    assert_eq!(history.lost(1..=5), [3, 5]);
    assert_eq!(history.duplicates(), 1);
    assert_eq!(history.count(2), 2);
    assert_eq!(history.counts().len(), 3);
    assert!(std::panic::catch_unwind(|| history.assert_complete([1, 2, 4], 0)).is_err());
    history.assert_complete([1, 2, 4], 1);
}

#[test]
fn a_recorder_records_each_run_and_then_does_as_told() {
    let recorder = Recorder::failing_first(1);
    let run = |attempt: u32| {
        Command::new(recorder.program())
            .env("DISPATCHBOX_EVENT_ID", "12")
            .env("DISPATCHBOX_ATTEMPT", attempt.to_string())
            .status()
            .unwrap()
            .success()
    };

    let successes = [run(1), run(2)];

    assert_eq!(successes, [false, true]);
    assert_eq!(recorder.history().runs(), [(12, 1), (12, 2)]);
}

#[test]
fn a_receiver_keeps_connections_and_answers_as_told() {
    let receiver = Receiver::start();
    let authority = receiver.url().replace("http://", "").replace("/hook", "");
    let mut stream = TcpStream::connect(authority).unwrap();
    let mut post = |id: u32| {
        let head = "POST /hook HTTP/1.1\r\nContent-Length: 2\r\nDispatchbox-Attempt: 1\r\n";
        let request = format!("{head}Dispatchbox-Event-Id: {id}\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 1024];
        let n = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..n]).into_owned()
    };

    let first = post(1);
    receiver.set_status(503);
    receiver.set_header("Retry-After: 7");
    let second = post(2);

    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
    assert!(second.contains("Retry-After: 7\r\n"), "{second}");
    assert_eq!(receiver.history().runs(), [(1, 1), (2, 1)]);
    assert_eq!(receiver.n_connections(), 1);
    assert_eq!(receiver.requests()[0].body, b"{}");
}

#[test]
fn a_metric_is_the_sum_of_the_series_that_match() {
    let text = "# HELP a_total b\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\nb 5\n";

    assert_eq!(metric_in(text, "a_total", &[("x", "1")]), Some(7.0));
    assert_eq!(metric_in(text, "a_total", &[("y", "3")]), Some(4.0));
    assert_eq!(metric_in(text, "b", &[]), Some(5.0));
    assert_eq!(metric_in(text, "a", &[]), None);
}

#[test]
fn nothing_of_a_browser_is_left_when_its_value_is_dropped() {
    let browser = Browser::start();
    let processes = browser.processes();
    assert!(processes.len() > 3, "{processes:?}");

    drop(browser);

    wait_until("its processes are gone", || {
        !processes.iter().any(|&pid| process::is_alive(pid))
    });
}
