//! The demo: something of each status, and nothing left however it ends.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::support::daemon::signal_pid;
use crate::support::{TestDir, process, wait_until};

/// A running demo with a temporary directory of its own, by which its processes are known as well.
struct Demo {
    child: Child,
    directory: TestDir,
    output: Arc<Mutex<String>>,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let directory = TestDir::new();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
            .arg("demo")
            .args(args)
            .env("TMPDIR", directory.path())
            // What somebody has set for their own daemon and psql must not lead the demo astray.
            .env("DISPATCHBOX_DSN", "host=/nowhere")
            .env("PGPORT", "1")
            .env("PGOPTIONS", "-c search_path=nowhere")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        collect(stdout, Arc::clone(&output));
        collect(stderr, Arc::clone(&output));
        Demo {
            child,
            directory,
            output,
        }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until the person is told what to try.
    fn wait_introduced(&self) {
        wait_until("the demo has introduced itself", || {
            self.output().contains("Ctrl-C ends the demo")
        });
    }

    fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the demo's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Counts of pending, retry, done and dead events in the line that begins so.
    fn counts(&self, line: &str) -> [u32; 4] {
        let output = self.output();
        let line = output
            .lines()
            .find_map(|text| text.strip_prefix(line))
            .unwrap_or_else(|| panic!("no line `{line}`:\n{output}"));
        let counts: Vec<u32> = line
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        counts.try_into().unwrap()
    }

    /// The directory of its server, as the psql line names it.
    fn cluster(&self) -> PathBuf {
        let output = self.output();
        let host = output.split_once("psql 'host=").unwrap().1;
        host.split(' ').next().unwrap().into()
    }

    fn processes(&self) -> Vec<u32> {
        process::with_environment(&format!("TMPDIR={}\0", self.directory.path().display()))
    }

    /// Waits: after a SIGKILL it takes a moment until the pipes' ends have been noticed.
    fn assert_nothing_is_left(&self) {
        let cluster = self.cluster();
        wait_until("no process is left", || self.processes().is_empty());
        wait_until("the cluster's directory is gone", || !cluster.exists());
        let left = self.directory.entries();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the demo ---\n{}---", self.output());
        }
    }
}

#[test]
fn a_demo_ends_by_itself_and_has_made_events_done_retried_and_dead() {
    let mut demo = Demo::start(&["--exit-after", "0.2"]);

    let status = demo.wait_exit();

    assert!(status.success(), "{}", demo.output());
    let before = demo.counts("sample events");
    let after = demo.counts("in the end");
    assert_eq!(before.iter().sum::<u32>(), 100);
    assert_eq!(after.iter().sum::<u32>(), 100);
    assert_eq!(after[0], 0, "something is pending still");
    for status in 1..4 {
        assert!(after[status] > before[status], "{before:?} {after:?}");
    }
    let end = "Ctrl-C ends the demo, or it ends by itself in 0.2 s";
    assert!(demo.output().contains(end), "{}", demo.output());
    demo.assert_nothing_is_left();
}

#[test]
fn what_a_demo_suggests_works() {
    let demo = Demo::start(&[]);
    demo.wait_introduced();
    let output = demo.output();
    for words in [
        "/ in a browser",
        "  dispatchbox status --url http://127.0.0.1:",
    ] {
        assert!(output.contains(words), "`{words}` in\n{output}");
    }
    let suggested = |program: &str| -> Vec<String> {
        let begins = format!("  {program} ");
        let lines = output.lines().filter(|line| line.starts_with(&begins));
        lines.map(|line| line.trim().to_owned()).collect()
    };

    for line in suggested("psql") {
        let psql = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(psql.status.success(), "{line}: {psql:?}");
    }
    for line in suggested("curl") {
        let (method, url) = match line.strip_prefix("curl -X POST http://") {
            Some(url) => ("POST", url),
            None => ("GET", line.strip_prefix("curl http://").unwrap()),
        };
        let (authority, path) = url.split_once('/').unwrap();
        let mut stream = TcpStream::connect(authority).unwrap();
        let request = format!("{method} /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{line}: {answer}");
    }

    assert!(suggested("psql").len() >= 2 && suggested("curl").len() >= 4);
    let log = suggested("tail").remove(0);
    let log = log.strip_prefix("tail -f ").unwrap();
    wait_until("the suggested event is handled", || {
        std::fs::read_to_string(log)
            .unwrap()
            .contains("event 101 order.created")
    });
}

/// Goal: a newcomer sees what came of the events and what to try, without a line of the log before,
/// between or behind.
#[test]
fn the_table_and_what_to_try_stand_last_and_no_log_pushes_them_away() {
    let demo = Demo::start(&[]);
    demo.wait_introduced();

    let output = demo.output();
    assert!(!output.contains("INFO"), "{output}");
    let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() <= 20, "{output}");
    let place = |words: &str| lines.iter().position(|line| line.starts_with(words));
    assert_eq!(place("sample events"), Some(2), "{output}");
    assert_eq!(place("handled"), Some(3), "{output}");
    assert_eq!(
        place("Ctrl-C ends the demo"),
        Some(lines.len() - 1),
        "{output}"
    );
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start(&[]);
        demo.wait_introduced();
        assert!(demo.cluster().exists());
        assert!(demo.processes().len() > 5, "supervisor, workers, a server");

        signal_pid(demo.child.id(), signal);

        assert!(demo.wait_exit().success(), "{}", demo.output());
        assert!(demo.output().contains("in the end"));
        demo.assert_nothing_is_left();
    }
}

#[test]
fn a_demo_that_is_interrupted_before_it_has_begun_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    wait_until("the demo has begun", || !demo.output().is_empty());

    signal_pid(demo.child.id(), Signal::INT);

    assert!(demo.wait_exit().success(), "{}", demo.output());
    wait_until("no process is left", || demo.processes().is_empty());
    assert!(demo.directory.entries().is_empty());
}

#[test]
fn a_killed_demo_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    demo.wait_introduced();

    demo.child.kill().unwrap();
    demo.child.wait().unwrap();

    demo.assert_nothing_is_left();
}

/// Goal: who makes the server has nobody to answer to any more, and cleans up nevertheless.
#[test]
fn a_demo_that_is_killed_while_its_server_is_made_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    let cluster = PathBuf::from(format!("/tmp/dispatchbox-{}-0", demo.child.id()));
    wait_until("the server is being made", || cluster.join("data").exists());

    demo.child.kill().unwrap();
    demo.child.wait().unwrap();

    wait_until("no process is left", || demo.processes().is_empty());
    wait_until("the server's directory is gone", || !cluster.exists());
    assert!(demo.directory.entries().is_empty());
}

#[test]
fn a_demo_whose_daemon_dies_says_so_and_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    demo.wait_introduced();
    let supervisor = demo
        .processes()
        .into_iter()
        .find(|&pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|&byte| byte == 0).nth(1) == Some(b"run")
        })
        .unwrap();

    signal_pid(supervisor, Signal::KILL);

    assert_eq!(demo.wait_exit().code(), Some(1));
    // What it has written is read by a thread of its own.
    wait_until("it says so", || {
        demo.output().contains("error: the daemon ended")
    });
    // The last that it said, since its log goes with the demo.
    assert!(demo.output().contains("worker-01"), "{}", demo.output());
    demo.assert_nothing_is_left();
}

#[test]
fn a_demo_without_postgresql_says_what_to_install() {
    let output = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["demo", "--exit-after", "1"])
        .env("PG_BIN", "/nonexistent")
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("PG_BIN"), "{stderr}");
}

fn collect(mut reader: impl BufRead + Send + 'static, output: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            output.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
}
