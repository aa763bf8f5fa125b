//! What the README claims is so: its options, endpoints and metrics are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Daemon, TestDb, wait_until};

const README: &str = include_str!("../../README.md");

/// The first cells of the README's table rows that begin with this text, without backticks.
fn first_cells(begin: &str) -> BTreeSet<String> {
    README
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(cell, _)| cell.to_owned())
        .filter(|cell| cell.starts_with(begin))
        .collect()
}

/// The options of `run` by its help, each with its default, if it has one.
fn options_of_run() -> BTreeMap<String, Option<String>> {
    let help = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options = help.split("\n  --").skip(1).map(|option| {
        let words: Vec<&str> = option.split_whitespace().collect();
        let text = words.join(" ");
        let default = text.split_once("[default: ");
        let default = default.and_then(|(_, rest)| rest.split_once(']'));
        let default = default.map(|(default, _)| default.to_owned());
        (format!("--{}", words[0]), default)
    });
    options.collect()
}

#[test]
fn its_options_are_those_of_run() {
    let real: BTreeSet<String> = options_of_run().into_keys().collect();

    assert!(real.len() > 20, "{real:?}");
    assert_eq!(first_cells("--"), real);
}

/// Goal: the table of options names the defaults that the program has. Method: compare the first
/// words, since the table explains some defaults further.
#[test]
fn its_defaults_are_those_of_run() {
    let first = |text: &str| text.split([' ', ',']).next().unwrap().to_owned();
    let mut n_compared = 0;
    for (option, default) in options_of_run() {
        let row = format!("| `{option}` |");
        let row = README.lines().find(|line| line.starts_with(&row)).unwrap();
        let told = row.split('|').nth(3).unwrap().trim();
        if let Some(default) = default {
            assert_eq!(first(told), first(&default), "{option}");
            n_compared += 1;
        }
    }
    assert!(n_compared > 15, "{n_compared}");
}

#[test]
fn its_metrics_are_those_that_a_daemon_shows() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    wait_until("the worker has reported", || {
        daemon.metric("dispatchbox_worker_up", &[]) == Some(1.0)
    });
    wait_until("the table is surveyed", || {
        daemon.metric("dispatchbox_backlog_events", &[]).is_some()
    });

    let (_, text) = daemon.get("/metrics");

    let real: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE dispatchbox_"))
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("dispatchbox_{name}"))
        .collect();
    let told: BTreeSet<String> = first_cells("dispatchbox_")
        .iter()
        .map(|cell| cell.split('{').next().unwrap().to_owned())
        .collect();
    assert_eq!(told, real);
}

#[test]
fn its_endpoints_answer() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let id = db.insert_events("order.created", 1)[0];
    wait_until("the event is done", || db.count("done") == 1);
    db.execute("UPDATE outbox_event SET status = 'dead'");
    let (looks, changes) = (first_cells("GET "), first_cells("POST "));

    assert_eq!(looks.len(), 8, "{looks:?}");
    for endpoint in looks {
        let path = endpoint.split(' ').nth(1).unwrap();
        let path = path.replace("ID", &id.to_string());
        assert_eq!(daemon.get(&path).0, 200, "{endpoint}");
    }
    assert_eq!(changes.len(), 6, "{changes:?}");
    for endpoint in changes {
        // Without a body it is told to be there, and without an event.
        let path = endpoint.split(' ').nth(1).unwrap().replace("ID", "x");
        assert_eq!(daemon.post(&path, "").0, 400, "{endpoint}");
    }
}

#[test]
fn its_files_exist() {
    let root = env!("CARGO_MANIFEST_DIR");
    let linked = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://"));
    let named = README
        .split('`')
        .filter(|word| {
            [
                "src/",
                "tests/",
                "sql/",
                "scripts/",
                "systemd/",
                "examples/",
            ]
            .iter()
            .any(|folder| word.starts_with(folder))
        })
        .map(|word| word.split(' ').next().unwrap());

    let paths: Vec<&str> = linked.chain(named).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(std::path::Path::new(root).join(path).exists(), "{path}");
    }
}

/// Goal: what it says that the program survives is held by a test that exists.
#[test]
fn the_tests_that_it_names_exist() {
    let (_, table) = README.split_once("### What it survives").unwrap();
    let named: Vec<&str> = table
        .lines()
        .take_while(|line| !line.starts_with("Declined"))
        .filter_map(|line| line.strip_suffix("` |")?.rsplit_once('`'))
        .map(|(_, name)| name)
        .collect();

    let tests = test_names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"));
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        assert!(tests.contains(name), "`{name}`");
    }
}

/// The names of all functions in the files below a directory.
fn test_names(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.append(&mut test_names(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let names_in = source
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("fn ")?.split_once('('))
                .map(|(name, _)| name.to_owned());
            names.extend(names_in);
        }
    }
    names
}

#[test]
fn its_configuration_file_is_accepted() {
    let text = README
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let directory = crate::support::TestDir::new();
    let path = directory.file("dispatchbox.toml");
    std::fs::write(&path, text).unwrap();

    let check = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["config", "check", "--config", &path])
        .output()
        .unwrap();

    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
}
