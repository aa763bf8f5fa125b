//! `exec` with real programs: the meaning of how they end, and programs that misbehave.

use std::cell::RefCell;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use dispatchbox::domain::config::HandlerSpec;
use dispatchbox::handlers::HandlerError;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::{Only, event, retry_reason};
use crate::support::process::is_alive;
use crate::support::{TestDir, wait_until};

/// A timeout that is meant to be over soon, though not before a busy machine has come as far as the
/// test needs.
const SHORT: Duration = Duration::from_secs(1);

/// Far below the time that any program here would take, far above what ending it takes.
const PROMPT: Duration = Duration::from_secs(20);

fn command(words: &[&str]) -> HandlerSpec {
    HandlerSpec {
        kind: "exec".to_owned(),
        settings: json!({ "command": words }),
    }
}

fn script(text: &str) -> HandlerSpec {
    command(&["/bin/sh", "-c", text])
}

/// The number that a script wrote into a file.
fn number_in(path: &str) -> u32 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn status_0_is_done_and_the_program_has_read_the_event_as_one_line() {
    let dir = TestDir::new();
    let got = dir.file("got");
    let event = event("order.created");

    let result = Only::new(script(&format!(
        "read -r line; printf %s \"$line\" > {got}; cat >> {got}"
    )))
    .run(&event);

    assert_eq!(result, Ok(()));
    assert_eq!(fs::read_to_string(&got).unwrap(), event.to_json());
}

/// A column of type `json` keeps line ends between its tokens.
#[test]
fn a_payload_on_many_lines_is_one_line_for_the_program() {
    let dir = TestDir::new();
    let got = dir.file("got");
    let mut event = event("order.created");
    event.payload = "{\r\n  \"n\": 1.00,\n  \"text\": \"a\\nb\"\n}".to_owned();
    event.headers = Some("{\n}".to_owned());

    let result = Only::new(script(&format!(
        "read -r line; printf %s \"$line\" > {got}; cat >> {got}"
    )))
    .run(&event);

    assert_eq!(result, Ok(()));
    let expected = event.to_json().replace(['\r', '\n'], " ");
    assert_eq!(fs::read_to_string(&got).unwrap(), expected);
    assert!(
        expected.contains(r#"{    "n": 1.00,   "text": "a\nb" }"#),
        "{expected}"
    );
}

#[test]
fn status_65_is_dead_at_once_with_what_the_program_said() {
    let result = Only::new(script("echo no such customer; exit 65")).run(&event("a"));

    assert_eq!(
        result,
        Err(HandlerError::Permanent(
            "exit status 65: no such customer".to_owned()
        ))
    );
}

#[test]
fn any_other_end_is_worth_another_attempt() {
    let check = |text, reason| {
        assert_eq!(
            retry_reason(Only::new(script(text)).run(&event("a"))),
            reason
        );
    };

    check("exit 1", "exit status 1");
    check(
        "echo out; echo err >&2; echo out; exit 3",
        "exit status 3: out\nerr\nout",
    );
    check("kill -TERM $$", "ended by signal 15 (SIGTERM)");
    check(
        "echo last words; kill -KILL $$",
        "ended by signal 9 (SIGKILL): last words",
    );
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let check = |words: &[&str], reason: &str| {
        assert_eq!(
            retry_reason(Only::new(command(words)).run(&event("a"))),
            reason
        );
    };

    check(
        &["/nonexistent/send-mail", "--password=x"],
        "could not start `/nonexistent/send-mail`: No such file or directory (os error 2)",
    );
    check(
        &["no-such-program-anywhere"],
        "could not start `no-such-program-anywhere`: No such file or directory (os error 2)",
    );
    check(
        &["/"],
        "could not start `/`: Permission denied (os error 13)",
    );
}

#[test]
fn no_shell_touches_the_arguments() {
    let result = Only::new(command(&["test", "$(id) *;&", "=", "$(id) *;&"])).run(&event("a"));

    assert_eq!(result, Ok(()));
}

#[test]
fn the_program_gets_a_small_environment_and_starts_in_the_root() {
    let dir = TestDir::new();
    let got = dir.file("got");

    let result =
        Only::new(script(&format!("/usr/bin/env > {got}; pwd >> {got}"))).run(&event("order.ü"));

    assert_eq!(result, Ok(()));
    // Set for every test by cargo: it stands for all that the program must not see.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let got = fs::read_to_string(&got).unwrap();
    let names: Vec<&str> = got
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    for line in [
        "DISPATCHBOX_EVENT_ID=812",
        "DISPATCHBOX_EVENT_TYPE=order.ü",
        "DISPATCHBOX_ATTEMPT=3",
        "DISPATCHBOX_WORKER=test",
    ] {
        assert!(got.contains(&format!("{line}\n")), "{got}");
    }
    // A shell adds the last three by itself.
    let allowed = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "PWD",
        "SHLVL",
        "_",
    ];
    for name in names {
        let is_expected = allowed.contains(&name)
            || name.starts_with("LC_")
            || name.starts_with("DISPATCHBOX_EVENT_")
            || name == "DISPATCHBOX_ATTEMPT"
            || name == "DISPATCHBOX_WORKER";
        assert!(is_expected, "{name} reached the program");
    }
    assert!(got.ends_with("\n/\n"), "{got}");
}

#[test]
fn the_group_is_told_as_soon_as_it_exists_and_taken_back_at_its_end() {
    let dir = TestDir::new();
    let (fifo, got) = (dir.file("fifo"), dir.file("got"));
    let told = RefCell::new(Vec::new());
    // The script goes on only once it was told: it cannot end before.
    let only = Only::new(script(&format!(
        "echo $$ > {got}; mkfifo {fifo}; read -r go < {fifo}"
    )));

    let result = only.run_telling(&event("a"), &|group| {
        if group != 0 {
            assert!(is_alive(group));
            wait_until("the fifo is there", || fs::metadata(&fifo).is_ok());
            fs::write(&fifo, "go\n").unwrap();
        }
        told.borrow_mut().push(group);
    });

    assert_eq!(result, Ok(()));
    assert_eq!(*told.borrow(), [number_in(&got), 0]);
}

#[test]
fn a_program_over_its_time_gets_sigterm_and_may_clean_up() {
    let dir = TestDir::new();
    let cleaned = dir.file("cleaned");
    let only = Only::within(
        SHORT,
        script(&format!(
            "trap 'echo cleaned up; echo x > {cleaned}; exit 0' TERM; sleep 1000 & wait"
        )),
    );

    let reason = retry_reason(only.run(&event("a")));

    assert_eq!(reason, "timed out after 1 s: cleaned up");
    assert!(fs::metadata(&cleaned).is_ok());
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_with_its_whole_group() {
    let dir = TestDir::new();
    let (own, childs) = (dir.file("own"), dir.file("child"));
    let only = Only::within(
        SHORT,
        script(&format!(
            "trap '' TERM; sleep 1000 & echo $! > {childs}; echo $$ > {own}; \
             while :; do sleep 1000; done"
        )),
    );
    let started = Instant::now();

    let reason = retry_reason(only.run(&event("a")));

    assert_eq!(reason, "timed out after 1 s");
    // The time and its grace, which is as long: it was not killed at the first signal already.
    assert!(started.elapsed() >= 2 * SHORT);
    assert!(started.elapsed() < PROMPT);
    for pid in [number_in(&own), number_in(&childs)] {
        wait_until("the group is gone", || !is_alive(pid));
    }
}

#[test]
fn a_stopped_program_is_woken_to_clean_up() {
    let text = "trap 'echo cleaned up; exit 1' TERM; kill -STOP $$; sleep 1000";

    let reason = retry_reason(Only::within(SHORT, script(text)).run(&event("a")));

    assert_eq!(reason, "timed out after 1 s: cleaned up");
}

#[test]
fn a_flood_of_output_ends_with_the_time_and_its_end_is_kept() {
    let started = Instant::now();
    let flood = Only::within(SHORT, command(&["yes", "flood"])).run(&event("a"));

    let reason = retry_reason(flood);
    assert!(started.elapsed() < PROMPT);
    assert!(reason.starts_with("timed out after 1 s: …"), "{reason}");
    assert!(reason.len() <= 4096);

    let long = script("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the cause >&2; exit 3");
    let reason = retry_reason(Only::new(long).run(&event("a")));
    assert!(reason.starts_with("exit status 3: …xxx"), "{reason}");
    assert!(reason.ends_with("xxx\nthe cause"), "{reason}");
    assert!(reason.len() <= 4096);
}

#[test]
fn a_program_that_never_reads_its_input_blocks_nobody() {
    let mut big = event("a");
    big.payload = format!("\"{}\"", "x".repeat(10_000_000));

    let ignores = Only::new(script("exit 0")).run(&big);
    let closes = Only::new(script("exec <&-; echo closed; exit 1")).run(&big);
    let started = Instant::now();
    let hangs = Only::within(SHORT, script("sleep 1000")).run(&big);

    assert_eq!(ignores, Ok(()));
    assert_eq!(retry_reason(closes), "exit status 1: closed");
    assert_eq!(retry_reason(hangs), "timed out after 1 s");
    assert!(started.elapsed() < PROMPT);
}

#[test]
fn a_large_event_arrives_whole() {
    let mut big = event("a");
    big.payload = format!("\"{}\"", "x".repeat(10_000_000));
    let length = big.to_json().len() + 1;

    let result = Only::new(script(&format!("[ $(wc -c) = {length} ]"))).run(&big);

    assert_eq!(result, Ok(()));
}

#[test]
fn what_a_program_leaves_behind_in_its_group_ends_with_it() {
    let dir = TestDir::new();
    let childs = dir.file("child");
    let started = Instant::now();

    let result = Only::new(script(&format!("sleep 1000 & echo $! > {childs}"))).run(&event("a"));

    assert_eq!(result, Ok(()));
    assert!(started.elapsed() < PROMPT);
    let pid = number_in(&childs);
    wait_until("the background process is gone", || !is_alive(pid));
}

#[test]
fn a_descendant_that_left_the_group_and_holds_the_pipes_blocks_nobody() {
    let dir = TestDir::new();
    let (childs, fifo) = (dir.file("child"), dir.file("fifo"));
    let check = |left: &str, end: &str| {
        // It says who it is only once it has left.
        let text = format!(
            "mkfifo {fifo}; setsid sh -c 'echo $$ > {childs}; echo x > {fifo}; {left}' & \
             read -r x < {fifo}; rm {fifo}; {end}"
        );
        let started = Instant::now();
        let result = Only::new(script(&text)).run(&event("a"));
        assert!(started.elapsed() < PROMPT);
        let pid = number_in(&childs);
        let was_alive = is_alive(pid);
        kill(pid);
        assert!(was_alive, "it was to live on");
        result
    };

    let holds = check("sleep 1000; exit", "exit 0");
    assert_eq!(holds, Ok(()));
    // When nobody reads any more `yes` ends, and its shell must not.
    let floods = check("trap \"\" PIPE; yes; sleep 1000; exit", "exit 1");
    assert!(retry_reason(floods).starts_with("exit status 1"));
}

/// Ends a process that left its group, and its children.
fn kill(pid: u32) {
    let group = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    wait_until("it is gone", || !is_alive(pid));
}

#[test]
fn a_panic_while_a_program_runs_leaves_no_process() {
    let group = RefCell::new(0);
    let only = Only::new(script("sleep 1000"));

    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        only.run_telling(&event("a"), &|told| {
            *group.borrow_mut() = told;
            panic!("while it runs");
        })
    }));

    assert!(result.is_err());
    let pid = *group.borrow();
    assert_ne!(pid, 0);
    wait_until("it is gone", || !is_alive(pid));
}

#[test]
fn programs_of_many_runners_at_once_keep_out_of_each_others_way() {
    let only = Only::new(script("cat; exit 1"));
    let barrier = Barrier::new(8);
    let (only, barrier) = (&only, &barrier);

    thread::scope(|scope| {
        for runner in 0..8 {
            scope.spawn(move || {
                for i in 0..10 {
                    let mut event = event("a");
                    event.id = runner * 100 + i;
                    if i == 0 {
                        barrier.wait();
                    }
                    let reason = retry_reason(only.run(&event));
                    assert_eq!(reason, format!("exit status 1: {}", event.to_json()));
                }
            });
        }
    });
}
