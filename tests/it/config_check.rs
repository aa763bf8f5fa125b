//! What `config check` prints: three columns that hold whatever stands in them, and what the
//! settings mean together.

use crate::support::{Cli, Daemon, TestDb};

const LONG: &str = "order.created.by.a.customer.of.the.shop.*=https://crm.example/a/long/path/that/goes/on/and/on/and/on/and/on";

fn check(args: &[&str]) -> Cli {
    Cli::new(["config", "check", "--dsn=host=x user=u dbname=d"]).args(args.iter().copied())
}

#[test]
fn the_columns_hold_whatever_stands_in_them() {
    let said = check(&["--route", LONG, "--route", "*=log"]).run();

    assert_eq!(said.status, 0, "{}", said.stderr);
    let lines: Vec<&str> = said.stdout.lines().collect();
    let column = |line: &&str| line.rfind("  ").map(|at| at + 2);
    let sources: Vec<Option<usize>> = lines.iter().map(column).collect();
    assert!(
        sources.windows(2).all(|two| two[0] == two[1]),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains(LONG), "{}", said.stdout);
}

#[test]
fn a_terminal_shows_long_values_whole_in_their_column() {
    for width in [80, 100, 200] {
        let (shown, status) = check(&["--route", LONG]).on_terminal(width);

        assert_eq!(status, 0);
        let lines: Vec<&str> = shown.lines().collect();
        for line in &lines {
            assert!(line.chars().count() <= usize::from(width), "{line}");
        }
        let first = lines
            .iter()
            .position(|line| line.starts_with("route "))
            .unwrap();
        assert!(lines[first].ends_with("  flag"), "{}", lines[first]);
        let value: String = lines[first..]
            .iter()
            .flat_map(|line| line.split_whitespace())
            .filter(|word| !["route", "flag"].contains(word))
            .collect();
        assert_eq!(value, LONG, "{shown}");
    }
}

#[test]
fn no_value_moves_a_cursor() {
    let said = check(&["--http-allowed-hosts=a"])
        .env("DISPATCHBOX_DSN_FILE", "")
        .args(["--route", "*=exec:'/bin/\u{1b}[2J'"])
        .run();
    assert!(!said.stdout.contains('\u{1b}'), "{:?}", said.stdout);
    assert!(
        said.stdout.contains("exec:/bin/\\x1b[2J"),
        "{}",
        said.stdout
    );
}

/// What is said of a handler that may outlast a lease.
const HINT: &str = "a handler of the route `slow.*` may take 120 s but a lease lasts 60 s: its worker renews the lease meanwhile; \
    only where it cannot for that long, since the database or the worker is stopped for example, another worker takes the event, \
    and it may be delivered twice";

#[test]
fn a_lease_that_is_shorter_than_a_timeout_is_said() {
    let directory = crate::support::TestDir::new();
    let path = directory.file("c.toml");
    std::fs::write(
        &path,
        "[[route]]\nevent_type = 'slow.*'\nhandler = 'log'\ntimeout_seconds = 120\n\
         [[route]]\nevent_type = '*'\nhandler = 'log'\n",
    )
    .unwrap();
    let said = check(&["--config", &path, "--drain-timeout=120"]).run();
    assert_eq!((said.status, said.stderr), (0, format!("hint: {HINT}\n")));

    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .args(["--config", &path, "--drain-timeout=120"])
        .start();
    daemon.wait_log(HINT);

    // The one that counts is a route's, not the default that no route has.
    let said = check(&["--handler-timeout=60", "--drain-timeout=60"]).run();
    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    let said = check(&["--handler-timeout=61", "--drain-timeout=61"]).run();
    assert!(
        said.stderr
            .starts_with("hint: a handler may take 61 s but a lease lasts 60 s: "),
        "{}",
        said.stderr
    );
}
