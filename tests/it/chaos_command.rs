//! The command `chaos`: every law holds, each broken protection is found, nothing is left.

use std::fs;
use std::process::{Command, Output, Stdio};

use dispatchbox::dev::chaos::Fault;
use dispatchbox::store::schema::SCHEMA;
use rustix::process::Signal;

use crate::support::daemon::signal_pid;
use crate::support::{Cli, TestDir, process, wait_until};

/// Goal: the laws hold whatever breaks. Method: half a minute with each fault at least once.
#[test]
fn a_chaos_of_every_fault_breaks_no_law_and_leaves_nothing() {
    let directory = TestDir::new();

    let output = chaos(&directory, &["--minutes", "0.4", "--seed", "2"]);

    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for fault in Fault::ALL {
        assert!(column(&text, fault.name()) > 0, "{}: {text}", fault.name());
    }
    assert_eq!(text.matches(" ok ").count(), 9, "{text}");
    assert!(!text.contains("BROKEN"), "{text}");
    let left = directory.entries();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_of(&directory), [0u32; 0]);
}

/// A stale worker writes over what another one has done since.
#[test]
fn a_settle_that_does_not_check_its_lease_is_found() {
    check_mutant(
        "outbox_settle_1",
        "    join named n on n.token = u.token and n.id = u.id;",
        "    ;",
        &["--minutes", "0.3", "--faults", "freeze-host"],
        "fenced",
    );
}

/// An event that kills its worker does so for ever.
#[test]
fn a_sweep_that_charges_nothing_is_found() {
    check_mutant(
        "outbox_settle_each_1",
        "from outbox_settle_1(worker, tokens[i:i], ids[i:i], outcomes[i:i],",
        "from outbox_settle_1(worker, tokens[i:i], ids[i:i], array[replace(replace(outcomes[i], 'retry', 'released'), 'dead', 'released')],",
        &["--minutes", "0.15", "--faults", "kill-worker"],
        "charged",
    );
}

/// Goal: Ctrl-C ends the play and not the check.
#[test]
fn an_interrupt_ends_the_faults_and_the_report_comes() {
    let directory = TestDir::new();
    let child = command(&directory, &["--minutes", "60", "--faults", "kill-worker"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the daemons are started", || {
        directory
            .entries()
            .iter()
            .any(|entry| entry.join("daemon-1-001.log").exists())
    });

    signal_pid(child.id(), Signal::INT);

    let output = child.wait_with_output().unwrap();
    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.matches(" ok ").count(), 9, "{text}");
    assert_eq!(processes_of(&directory), [0u32; 0]);
}

#[test]
fn options_of_a_chaos_out_of_range_are_usage_errors() {
    for (args, text) in [
        (["--minutes", "2000"], "--minutes must be at most 1440"),
        (["--minutes", "x"], "--minutes must be a number of minutes"),
        (["--seed", "1.5"], "--seed must be a whole number"),
        (
            ["--faults", "kill-wolf"],
            "--faults must be among kill-worker, ",
        ),
        (["--sql", "/nowhere"], "--sql could not be read: "),
    ] {
        let said = Cli::new(["chaos"]).args(args).run();
        assert_eq!(said.status, 2, "{args:?}");
        let begin = format!("error: {text}");
        assert!(said.stderr.starts_with(&begin), "{}", said.stderr);
    }
}

/// Runs a chaos on a schema whose function lacks a protection, and checks that it names the law.
#[track_caller]
fn check_mutant(function: &str, from: &str, to: &str, args: &[&str], law: &str) {
    let directory = TestDir::new();
    let file = directory.file("mutant.sql");
    let begin = SCHEMA.find(&format!("create or replace function {function}("));
    let text = &SCHEMA[begin.unwrap()..];
    let text = &text[..text.find("\nend $$;").unwrap()];
    assert_eq!(text.matches(from).count(), 1, "{text}");
    fs::write(&file, text.replace(from, to) + "\nend $$;").unwrap();

    let output = chaos(
        &directory,
        &[args, &["--seed", "2", "--sql", &file]].concat(),
    );

    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = text.lines().find(|line| line.starts_with(law)).unwrap();
    assert!(line.contains("BROKEN"), "{text}");
    let logs = text.split_once("handlers are in ").unwrap().1;
    let logs = logs.lines().next().unwrap().trim_end_matches('.');
    assert!(fs::metadata(format!("{logs}/history")).unwrap().len() > 0);
    assert!(
        fs::metadata(format!("{logs}/daemon-0-001.log"))
            .unwrap()
            .len()
            > 0
    );
    assert_eq!(processes_of(&directory), [0u32; 0]);
}

fn command(directory: &TestDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dispatchbox"));
    command
        .arg("chaos")
        .args(args)
        .env("TMPDIR", directory.path())
        // What somebody has set for their own daemon must not lead these astray.
        .env("DISPATCHBOX_DSN", "host=/nowhere")
        .env("PGOPTIONS", "-c search_path=nowhere")
        .stdin(Stdio::null());
    command
}

fn chaos(directory: &TestDir, args: &[&str]) -> Output {
    command(directory, args).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// The number behind a name at the begin of a line.
fn column(text: &str, name: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no line `{name}`: {text}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What a chaos has started and not ended, by the directory for temporary files that it was given.
fn processes_of(directory: &TestDir) -> Vec<u32> {
    process::with_environment(&format!("TMPDIR={}\0", directory.path().display()))
}
