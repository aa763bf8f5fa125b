//! What the program says to whoever types, exactly.
//!
//! Nothing here has a database: `config check` shows what `run` would start with.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Stdio};

use dispatchbox::cli::args::front;
use proptest::prelude::*;

use crate::support::{Cli, TestDir};

/// The line under most errors about options.
const RUN_HINT: &str = "hint: `dispatchbox help run` lists its options\n";

#[track_caller]
fn check_refused(args: &[&str], stderr: &str) {
    Cli::new(args).stderr(stderr).status(2).check();
}

#[track_caller]
fn check_run_refused(args: &[&str], error: &str) {
    check_refused(args, &format!("error: {error}\n{RUN_HINT}"));
}

#[test]
fn the_help_is_what_it_was() {
    Cli::new(["--help"]).snapshot("help").check();
    Cli::new(["help", "run"]).snapshot("help_run").check();
    Cli::new(["help", "routes"]).snapshot("help_routes").check();
    Cli::new(["help", "migrate"])
        .snapshot("help_migrate")
        .check();
    Cli::new(["help", "config"]).snapshot("help_config").check();
    Cli::new(["help", "config", "check"])
        .snapshot("help_config_check")
        .check();
    Cli::new(["help", "dead-events"])
        .snapshot("help_dead_events")
        .check();
    for command in [
        "list",
        "show",
        "retry",
        "retry-batch",
        "stats",
        "export",
        "discard",
    ] {
        Cli::new(["help", "dead-events", command])
            .snapshot(&format!("help_dead_events_{}", command.replace('-', "_")))
            .check();
    }
    for command in ["status", "explain", "doctor", "publish"] {
        Cli::new(["help", command])
            .snapshot(&format!("help_{command}"))
            .check();
    }
}

#[test]
fn help_is_found_however_it_is_asked_for() {
    for args in [&["help"][..], &["-h"], &["help", "--help"]] {
        Cli::new(args).snapshot("help").check();
    }
    for args in [
        &["run", "--help"][..],
        &["run", "-h"],
        &["run", "help"],
        &["--dsn", "host=x", "--help"],
        &["run", "--processes=0", "--help"],
    ] {
        Cli::new(args).snapshot("help_run").check();
    }
    Cli::new(["config", "check", "--help"])
        .snapshot("help_config_check")
        .check();
    for args in [["config", "--help"], ["config", "-h"], ["help", "config"]] {
        Cli::new(args).snapshot("help_config").check();
    }
}

#[test]
fn no_line_of_the_help_is_wider_than_a_terminal() {
    for topic in [
        "",
        "run",
        "routes",
        "migrate",
        "config check",
        "dead-events",
        "dead-events retry-batch",
        "dead-events discard",
        "status",
        "explain",
        "publish",
    ] {
        let said = Cli::new(["help"].into_iter().chain(topic.split_whitespace())).run();
        for line in said.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = format!("dispatchbox {}\n", env!("CARGO_PKG_VERSION"));
    Cli::new(["--version"]).stdout(&*version).check();
    Cli::new(["-V"]).stdout(version).check();
}

#[test]
fn an_unknown_word_is_named_with_the_nearest_known_one() {
    let hint = "hint: `dispatchbox help` lists the commands\n";
    check_refused(
        &["rnu"],
        &format!("error: unknown command `rnu`; did you mean `run`?\n{hint}"),
    );
    check_refused(
        &["worker", "x"],
        &format!("error: unknown command `worker`\n{hint}"),
    );
    check_refused(
        &["config"],
        &format!("error: `config` needs a command: check\n{hint}"),
    );
    check_refused(
        &["config", "chek"],
        &format!("error: unknown `config` command `chek`; did you mean `check`?\n{hint}"),
    );
    check_refused(
        &["help", "nothing"],
        &format!("error: unknown command `nothing`\n{hint}"),
    );
    check_run_refused(
        &["--dns", "x"],
        "unknown option `--dns`; did you mean `--dsn`?",
    );
    check_run_refused(
        &["run", "--PROCESSES=3"],
        "unknown option `--PROCESSES`; did you mean `--processes`?",
    );
    check_run_refused(
        &["--lease", "5"],
        "unknown option `--lease`; did you mean `--lease-seconds`?",
    );
    check_run_refused(&["-x"], "unknown option `-x`");
    check_run_refused(&["run", "more"], "unexpected argument `more`");
}

#[test]
fn an_option_is_given_once_and_with_its_value() {
    check_run_refused(&["--dsn"], "--dsn needs a value: <dsn>");
    check_run_refused(&["--dsn", "--processes", "2"], "--dsn needs a value: <dsn>");
    check_run_refused(
        &["--processes=1", "--processes", "2"],
        "--processes is given twice",
    );
    check_run_refused(&["--disable-http=true"], "--disable-http takes no value");
}

#[test]
fn what_a_command_cannot_do_without_is_named() {
    for (args, command, missing) in [
        (&["explain"][..], "explain", "an id"),
        (&["dead-events", "show"], "dead-events show", "an id"),
        (
            &["publish", "--event-type=a"],
            "publish",
            "--aggregate-type, --aggregate-id",
        ),
    ] {
        check_refused(
            args,
            &format!(
                "error: `{command}` needs {missing}\nhint: `dispatchbox help {command}` lists its options\n"
            ),
        );
    }
}

#[test]
fn of_two_places_in_one_layer_that_name_a_database_it_is_said_which_counts() {
    let check = |dsn_file: &str, stderr: &str| {
        let said = Cli::new(["config", "check", "--dsn=host=x"])
            .args([dsn_file].into_iter().filter(|text| !text.is_empty()))
            .env("DISPATCHBOX_DSN_FILE", "y")
            .run();
        assert_eq!((said.status, said.stderr.as_str()), (0, stderr));
    };
    check(
        "--dsn-file=y",
        "warning: --dsn-file has no effect: --dsn counts\n",
    );
    check("", "");
}

/// The daemon of the bench has a handler that does nothing, that of the chaos one that plays: sent
/// there, events would be done and lost.
#[test]
fn the_handlers_of_bench_and_chaos_are_known_to_no_route_and_named_in_no_message() {
    let names = [
        "bench-noop",
        "bench-nop",
        "bench-soak",
        "chaos-play",
        "chaos-pla",
    ];
    for (command, name) in ["run", "config check"]
        .into_iter()
        .flat_map(|c| names.map(|n| (c, n)))
    {
        let route = format!("--route=*={name}");
        let said = Cli::new(command.split(' '))
            .args(["--dsn=host=x", &route])
            .run();
        let refusal = format!(
            "error: --route has the route `*`: there is no handler `{name}`; there are `log`, `exec`, `http`\n"
        );
        assert_eq!(said.status, 2);
        assert!(said.stderr.starts_with(&refusal), "{}", said.stderr);
    }
}

#[test]
fn a_mistake_in_the_file_says_what_is_wrong_with_it() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, "dsn = \"host=hunter2\n").unwrap();
    let said = Cli::new(["config", "check", "--config", &path]).run();
    assert_eq!(said.status, 78);
    assert!(
        said.stderr.contains("line 1: invalid string, expected"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("config check"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
}

#[test]
fn an_option_takes_its_value_in_either_form() {
    let separate = Cli::new([
        "config",
        "check",
        "--dsn",
        "host=h user=u",
        "--http-port",
        "0",
    ])
    .run();
    let joined = Cli::new(["config", "check", "--dsn=host=h user=u", "--http-port=0"]).run();
    assert_eq!(separate.status, 0, "{}", separate.stderr);
    assert_eq!(separate.stdout, joined.stdout);
}

#[test]
fn run_is_meant_when_no_command_is_named() {
    let error = "error: no database is named: give --dsn\n\
         hint: or --dsn-file, DISPATCHBOX_DSN, DATABASE_URL, or PGHOST, PGDATABASE and the like\n";
    check_refused(&[], error);
    check_refused(&["run"], error);
    check_refused(&["--processes", "2"], error);
}

#[test]
fn a_value_out_of_range_ends_the_start() {
    // A database that nobody has named yet is told after that.
    for args in [
        &["--dsn=host=x", "--processes", "0"][..],
        &["--processes", "0"],
    ] {
        check_refused(
            args,
            "error: --processes must be at least 1, not `0`\n\
             hint: `dispatchbox help run` lists the options and their defaults\n",
        );
    }
}

#[test]
fn an_argument_or_variable_that_is_no_text_is_refused() {
    let broken = OsString::from_vec(b"host=\xff".to_vec());
    Cli::new([OsString::from("--dsn"), broken.clone()])
        .stderr("error: argument 2 is not valid UTF-8\n")
        .status(2)
        .check();
    Cli::new(["run"])
        .env("DISPATCHBOX_DSN", broken.clone())
        .stderr("error: the variable DISPATCHBOX_DSN is not valid UTF-8\n")
        .status(2)
        .check();
    let said = Cli::new(["config", "check", "--dsn=host=h"])
        .env("OTHER", broken)
        .run();
    assert_eq!(said.status, 0, "{}", said.stderr);
}

#[test]
fn config_check_shows_what_is_effective_and_where_it_comes_from() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(
        &path,
        "dsn = 'host=db port=5433 dbname=outbox user=me password=hunter2'\nlease_seconds = 20\n\
         [[route]]\nevent_type = 'order.*'\nhandler = 'http'\nurl = 'https://me:hunter2@crm.example/hooks?key=hunter2'\n\
         [[route]]\nevent_type = 'mail'\nhandler = 'exec'\ncommand = ['/bin/mail', '--password', 'hunter2']\n\
         timeout_seconds = 5\nmax_parallel = 4\n[route.retry]\nmax_attempts = 8\n",
    )
    .unwrap();

    let said = Cli::new(["config", "check", "--config", &path, "--route", "a=log"])
        .env("DISPATCHBOX_PROCESSES", "3")
        .run();

    assert_eq!(said.status, 0, "{}", said.stderr);
    let line = |name: &str| {
        let line = said.stdout.lines().filter(|line| line.starts_with(name));
        line.map(|line| {
            line.split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(line("dsn "), ["db:5433/outbox as me file"]);
    assert_eq!(line("processes "), ["3 environment"]);
    assert_eq!(line("lease-seconds "), ["20 file"]);
    assert_eq!(line("query-timeout "), ["10 default"]);
    assert_eq!(line("http-port "), ["8080 default"]);
    assert_eq!(
        line("route "),
        [
            "a=log flag",
            "order.*=https://***@crm.example/hooks file",
            "mail=exec:/bin/mail and 2 arguments (timeout_seconds 5, max_parallel 4, max_attempts 8) file"
        ]
    );
    assert!(!said.stdout.contains("hunter2"));
}

#[test]
fn config_check_fails_as_run_would() {
    check_refused(
        &["config", "check"],
        "error: no database is named: give --dsn\n\
         hint: or --dsn-file, DISPATCHBOX_DSN, DATABASE_URL, or PGHOST, PGDATABASE and the like\n",
    );
    Cli::new(["config", "check", "--dsn=host=x", "--config=/nonexistent"])
        .stderr(
            "error: could not read the configuration file `/nonexistent`: No such file or directory (os error 2)\n\
             hint: `dispatchbox help run` lists the options and their defaults\n",
        )
        .status(78)
        .check();
}

#[test]
fn config_check_says_which_routes_stand_in_when_there_are_none() {
    let said = Cli::new(["config", "check", "--dsn=host=x"]).run();
    assert!(said.stdout.contains("the sample routes"), "{}", said.stdout);
}

#[test]
fn config_check_warns_of_routes_that_can_hardly_be_meant() {
    let said = Cli::new(["config", "check", "--dsn=host=x"])
        .args(["--route", "order.*=log", "--route", "order.paid=log"])
        .args(["--route", "order.paid.*=log", "--route", "order.*=log"])
        .args(["--route", "order=exec:/bin/true", "--route", "a=exec:/bin"])
        .args(["--route", "b=exec:no-such-program", "--route", "*=log"])
        .env("PATH", "/usr/bin:/bin")
        .run();

    assert_eq!(said.status, 0, "{}", said.stderr);
    assert_eq!(
        said.stderr,
        "warning: route `order.paid` is never asked: `order.*` stands before it and takes all of its events\n\
         warning: route `order.paid.*` is never asked: `order.*` stands before it and takes all of its events\n\
         warning: route `order.*` is never asked: `order.*` stands before it and takes all of its events\n\
         warning: route `a`: the program `/bin` is not there, or may not be executed\n\
         warning: route `b`: the program `no-such-program` is not there, or may not be executed\n"
    );
}

/// A reader that has gone away, or a full disk, is no reason to panic.
#[test]
fn output_that_cannot_be_written_harms_nothing() {
    // Without standard error, too, only the exit code can tell it.
    for args in [&["help"][..], &["--processes=0", "--dsn=host=x"]] {
        let full = || {
            Stdio::from(
                fs::OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .unwrap(),
            )
        };
        let status = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
            .args(args)
            .env_clear()
            .stdout(full())
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(if args[0] == "help" { 1 } else { 2 }));
    }
}

/// Goal: no password ever comes out. Method: put one wherever a person might, in every way a start
/// can fail.
#[test]
fn no_failing_start_shows_a_password() {
    let directory = TestDir::new();
    let file = |name: &str, text: &str| {
        let path = directory.file(name);
        fs::write(&path, text).unwrap();
        path
    };
    let with_route = "[[route]]\nevent_type='*'\nhandler='log'\n";
    let config = |name: &str, text: &str| file(name, &format!("{text}\n{with_route}"));
    let dsns = [
        "host=h password=hunter2 hst=x",
        "host=h password=hunter2 sslmode=maybe",
        "host=h password=my hunter2 sslmode=disable",
        "host=h password=my hunter2=x",
        "host=h password='hunter2",
        "host=h port=hunter2",
        "host=hunter2@x",
        "password=hunter2 connect_timeout=hunter2",
        "postgres://u:hunter2@h:port/d",
        "postgres://u:hunter2@h/d?x=hunter2",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?hunter2",
        "postgres://u:%zzhunter2@h/d",
        "postgres://u:p@hunter2@h/d",
        "postgres://u:p/hunter2@h/d",
        "postgres://u:hunter2@[::1/d",
        "mysql://u:hunter2@h/d",
        "hunter2",
    ];
    let mut calls: Vec<Vec<String>> = Vec::new();
    for dsn in dsns {
        calls.push(vec!["--dsn".into(), dsn.into()]);
        calls.push(vec![format!("--dsn={dsn}"), "--dsn=x".into()]);
        calls.push(vec![dsn.into()]);
        calls.push(vec!["run".into(), dsn.into()]);
        calls.push(vec![format!("--dns={dsn}")]);
        if dsn.contains("password=") || dsn.contains("://") {
            calls.push(vec![format!("--processes={dsn}"), "--dsn=host=x".into()]);
            calls.push(vec![format!("--route={dsn}"), "--dsn=host=x".into()]);
        }
        calls.push(vec!["config".into(), dsn.into()]);
        calls.push(vec!["help".into(), dsn.into()]);
        calls.push(vec!["--dsn-file".into(), file("dsn", dsn)]);
    }
    calls.push(vec!["-phunter2".into()]);
    calls.push(vec![
        "--config".into(),
        config("a", "dsn = 'host=h password=hunter2 x=y'"),
    ]);
    calls.push(vec!["--config".into(), config("b", "dsn = ['hunter2']")]);
    calls.push(vec!["--config".into(), config("c", "dsn = 'hunter2")]);
    calls.push(vec![
        "--config".into(),
        config("d", "processes = 'password=hunter2'"),
    ]);

    for mut call in calls {
        call.push("--log-level=DEBUG".into());
        let said = Cli::new(&call)
            .env("DATABASE_URL", "postgres://u:hunter2@h:x/d")
            .run();
        // A word of letters may be a command or an option that was mistyped, which the person has
        // to see.
        if call.iter().any(|arg| arg == "hunter2") && said.stderr.contains("`hunter2`") {
            continue;
        }
        assert_ne!(said.status, 0, "{call:?} {}", said.stdout);
        assert!(!said.stderr.contains("hunter2"), "{call:?} {}", said.stderr);
        assert!(!said.stdout.contains("hunter2"), "{call:?} {}", said.stdout);
        assert!(
            said.stderr.starts_with("error: "),
            "{call:?} {}",
            said.stderr
        );
        assert!(said.stderr.lines().count() <= 2, "{call:?} {}", said.stderr);
    }
}

/// Words that a front may trip over, and any others.
fn any_argument() -> impl Strategy<Value = OsString> {
    prop_oneof![
        prop::sample::select(vec![
            "run",
            "config",
            "check",
            "migrate",
            "help",
            "worker",
            "--help",
            "-h",
            "--version",
            "--",
            "-",
            "",
            "=",
            "--=",
            "--dsn",
            "--dsn=",
            "--route",
            "--route=*=log",
            "--processes",
            "--disable-http",
            "--print",
            "--check",
            "--disable-http=",
            "-=",
        ])
        .prop_map(OsString::from),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(OsString::from_vec),
        any::<String>().prop_map(OsString::from),
    ]
}

proptest! {
    #[test]
    fn the_front_never_panics(args in prop::collection::vec(any_argument(), 0..6)) {
        if let Err(err) = front::parse(args) {
            prop_assert_eq!(err.exit_code(), 2);
            prop_assert!(!err.to_string().is_empty());
        }
    }
}
