//! What the settings come to: flag before environment before file before default, and the limits.

/// Who may use the API, and what is no token.
mod access;
/// The file's form, its routes, and what is wrong with either.
mod file;
/// What the help says of routes.
mod route_help;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

use argh::{ArgsInfo as _, FlagInfoKind};
use dispatchbox::cli::args::front::{self, Parsed};
use dispatchbox::cli::commands::Command;
use dispatchbox::cli::settings::run::RunArgs;
use dispatchbox::cli::settings::{self, Effective, Env, RunSettings, Source};
use dispatchbox::domain::config::{self, Config};
use dispatchbox::domain::usage::UsageError;
use dispatchbox::handlers::Handlers;

use crate::support::TestDir;

/// A route, so that a file is complete.
const ROUTE: &str = "[[route]]\nevent_type = '*'\nhandler = 'log'\n";

/// Each option with a value for flag, environment and file, and what it shows when nobody says
/// anything.
#[rustfmt::skip]
const OPTIONS: &[(&str, &str, &str, &str, &str)] = &[
    ("unrouted",              "leave", "fail",    "'leave'",   "fail"),
    ("processes",             "2",     "3",       "4",         "1"),
    ("max-parallel",          "2",     "3",       "4",         "10"),
    ("batch-size",            "2",     "3",       "4",         "10, growing to 500 under load"),
    ("max-batch-bytes",       "1MiB",  "2MiB",    "'3MiB'",    "64MiB"),
    ("poll-interval",         "0.25",  "3",       "4.5",       "1"),
    ("handler-timeout",       "2",     "3.5",     "4",         "30"),
    ("max-attempts",          "2",     "3",       "4",         "5"),
    ("retry-backoff-seconds", "2",     "3",       "4.5",       "30"),
    ("retry-multiplier",      "1.5",   "3",       "4",         "2"),
    ("retry-max-seconds",     "100",   "200",     "300",       "3600"),
    ("retry-jitter",          "0.2",   "0.3",     "0.4",       "0.1"),
    ("lease-seconds",         "70",    "80",      "90",        "60"),
    ("drain-timeout",         "50",    "60",      "70",        "35"),
    ("pool-size",             "2",     "4",       "5",         "3"),
    ("connect-timeout",       "2",     "3",       "4",         "10"),
    ("query-timeout",         "2",     "3",       "4",         "30"),
    ("http-host",             "::1",   "1.2.3.4", "'host'",    "0.0.0.0 and ::"),
    ("http-port",             "0",     "8081",    "8082",      "8080"),
    ("disable-http",          "",      "yes",     "true",      "false"),
    ("http-open-api",         "",      "yes",     "true",      "false"),
    ("http-allowed-hosts",    "a",     "B,c",     "'d'",       "none"),
    ("log-level",             "DEBUG", "ERROR",   "'WARNING'", "INFO"),
];

fn run_args<S: AsRef<str>>(args: &[S]) -> RunArgs {
    let args = args.iter().map(|arg| OsString::from(arg.as_ref()));
    let Parsed::Command(command) = front::parse(args).unwrap() else {
        panic!("this is no command")
    };
    let Command::Run(args) = *command else {
        panic!("this is not `run`")
    };
    args
}

fn explain(
    args: &[&str],
    env: &[(&str, &str)],
) -> Result<(RunSettings, Vec<Effective>), UsageError> {
    let env: Env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    settings::explain(&run_args(args), &env, &Handlers::default())
}

/// The settings with a database, which they cannot be without.
fn resolve(args: &[&str], env: &[(&str, &str)]) -> Result<RunSettings, UsageError> {
    let args = [&["--dsn=host=db"], args].concat();
    explain(&args, env).map(|(settings, _)| settings)
}

fn config_of(args: &[&str]) -> Config {
    resolve(args, &[]).unwrap().config
}

/// What is effective where nothing but the database is given.
fn usual() -> Config {
    Config {
        database: config_of(&[]).database,
        ..Config::default()
    }
}

/// The settings from a file of this text.
fn from_file(text: &str) -> Result<Config, UsageError> {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, text).unwrap();
    resolve(&["--config", &path], &[]).map(|settings| settings.config)
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, UsageError>, exit_code: u8, text: &str) {
    let err = result.unwrap_err();
    assert_eq!(err.to_string(), text);
    assert_eq!(err.exit_code(), exit_code);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    for &(name, flag, variable, in_file, default) in OPTIONS {
        let key = name.replace('-', "_");
        let directory = TestDir::new();
        let path = directory.file("c.toml");
        fs::write(&path, format!("{key} = {in_file}\n{ROUTE}")).unwrap();
        let flag = match flag {
            "" => vec![format!("--{name}")],
            value => vec![format!("--{name}"), value.to_owned()],
        };
        let variable = [(
            format!("DISPATCHBOX_{}", key.to_uppercase()),
            variable.to_owned(),
        )];
        let shown_by = |args: &[String], env: &[(String, String)]| {
            let dsn = ["--dsn".to_owned(), "host=db".to_owned()];
            let args = run_args(&[&dsn[..], args].concat());
            let env = env.iter().cloned().collect();
            let (_, effective) = settings::explain(&args, &env, &Handlers::default()).unwrap();
            let found = effective.into_iter().find(|setting| setting.name == name);
            let found = found.unwrap_or_else(|| panic!("{name} is not among the settings"));
            (found.value, found.source)
        };
        let plain = |text: &str| match text {
            "yes" => "true".to_owned(),
            "B,c" => "b,c".to_owned(),
            text => text.trim_matches('\'').to_owned(),
        };

        let file = ["--config".to_owned(), path];
        let all = [&file[..], &flag[..]].concat();
        let by_flag = flag.get(1).map_or("true", String::as_str);
        assert_eq!(
            shown_by(&all, &variable),
            (by_flag.to_owned(), Source::Flag),
            "{name}"
        );
        assert_eq!(
            shown_by(&file, &variable),
            (plain(&variable[0].1), Source::Environment),
            "{name}"
        );
        assert_eq!(
            shown_by(&file, &[]),
            (plain(in_file), Source::File),
            "{name}"
        );
        assert_eq!(
            shown_by(&[], &[]),
            (default.to_owned(), Source::Default),
            "{name}"
        );
    }
}

/// Goal: no option is forgotten by one of the three places. Method: compare what argh knows with
/// the table above.
#[test]
fn every_option_is_known_in_all_places() {
    let info = RunArgs::get_args_info();
    let flags: BTreeSet<&str> = info
        .flags
        .iter()
        .map(|flag| flag.long.trim_start_matches("--"))
        .collect();
    let elsewhere = [
        "help",
        "dsn",
        "dsn-file",
        "config",
        "route",
        "api-token-file",
    ];
    let in_table: BTreeSet<&str> = OPTIONS
        .iter()
        .map(|option| option.0)
        .chain(elsewhere)
        .collect();

    assert_eq!(flags, in_table);
}

#[test]
fn the_help_tells_the_real_defaults() {
    let help = ["help", "run"].map(OsString::from);
    let Ok(Parsed::Text(help)) = front::parse(help) else {
        panic!("this is no help")
    };
    for flag in RunArgs::get_args_info().flags {
        let name = flag.long.trim_start_matches("--");
        let Some(&(.., default)) = OPTIONS.iter().find(|option| option.0 == name) else {
            continue;
        };
        if !matches!(flag.kind, FlagInfoKind::Switch) {
            let (_, described) = help.split_once(&format!("\n  {} ", flag.long)).unwrap();
            let described = described.split("\n  -").next().unwrap();
            let words: Vec<&str> = described.split_whitespace().collect();
            let described = words.join(" ");
            let stands = described.contains(&format!("[default: {default}]"))
                || described.contains(&format!("[default: {default}, or"));
            assert!(stands, "{name}: {described}");
        }
    }
}

#[test]
fn a_default_that_is_typed_changes_nothing() {
    // The defaults of these are no values: a size that grows, all addresses, no names.
    let unlike = ["batch-size", "http-host", "http-allowed-hosts"];
    for &(name, .., default) in OPTIONS {
        if default != "false" && !unlike.contains(&name) {
            let config = config_of(&[&format!("--{name}={default}")]);
            assert_eq!(config, usual(), "{name}");
        }
    }
}

#[test]
fn a_value_out_of_range_is_told_what_is_allowed_wherever_it_stands() {
    #[rustfmt::skip]
    let cases = [
        ("processes", "0", "must be at least 1, not `0`"),
        ("processes", "257", "must be at most 256, not `257`"),
        ("processes", "-1", "must be at least 1, not `-1`"),
        ("processes", "two", "must be a whole number, not `two`"),
        ("max-parallel", "0", "must be at least 1, not `0`"),
        ("max-parallel", "1001", "must be at most 1000, not `1001`"),
        ("batch-size", "0", "must be at least 1, not `0`"),
        ("batch-size", "901", "must be at most 900, not `901`"),
        ("max-batch-bytes", "0", "must be at least 1, not `0`"),
        ("max-batch-bytes", "5GiB", "must be at most 4GiB, not `5GiB`"),
        ("max-batch-bytes", "lots", "must be a size such as `64MiB`, not `lots`"),
        ("poll-interval", "0", "must be at least 0.001, not `0`"),
        ("poll-interval", "nan", "must be a number of seconds, not `nan`"),
        ("poll-interval", "86401", "must be at most 86400, not `86401`"),
        ("handler-timeout", "inf", "must be a number of seconds, not `inf`"),
        ("max-attempts", "2147483648", "must be at most 2147483647, not `2147483648`"),
        ("retry-backoff-seconds", "-0.5", "must be at least 0, not `-0.5`"),
        ("retry-multiplier", "0.9", "must be at least 1, not `0.9`"),
        ("retry-multiplier", "x", "must be a number, not `x`"),
        ("retry-max-seconds", "31536001", "must be at most 31536000, not `31536001`"),
        ("retry-jitter", "1.1", "must be at most 1, not `1.1`"),
        ("lease-seconds", "1.9", "must be at least 2, not `1.9`"),
        ("drain-timeout", "1e99", "must be at most 86400, not `1e99`"),
        ("pool-size", "101", "must be at most 100, not `101`"),
        ("connect-timeout", "0", "must be at least 0.1, not `0`"),
        ("query-timeout", "3601", "must be at most 3600, not `3601`"),
        ("http-host", "a b", "must be an address or a host name, not `a b`"),
        ("http-port", "99999", "must be at most 65535, not `99999`"),
        ("http-port", "-1", "must be at least 0, not `-1`"),
        ("disable-http", "maybe", "must be `true` or `false`, not `maybe`"),
        ("log-level", "LOUD", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not `LOUD`"),
    ];
    for (name, value, refusal) in cases {
        let key = name.replace('-', "_");
        let variable = format!("DISPATCHBOX_{}", key.to_uppercase());
        if name != "disable-http" {
            let flag = format!("--{name}={value}");
            check_refused(resolve(&[&flag], &[]), 2, &format!("--{name} {refusal}"));
        }
        check_refused(
            resolve(&[], &[(&variable, value)]),
            2,
            &format!("{variable} {refusal}"),
        );
        file::check_file_refused(
            &format!("{key} = '{value}'\n{ROUTE}"),
            &format!("`{key}` in FILE {refusal}"),
        );
    }
}

#[test]
fn a_log_level_is_taken_in_any_case() {
    let level = |word: &str| config_of(&["--log-level", word]).log_level;
    assert_eq!(level("debug"), config::LogLevel::Debug);
    assert_eq!(level("Warning"), config::LogLevel::Warning);
    assert_eq!(level("CRITICAL"), config::LogLevel::Error);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    check_refused(
        resolve(&["--lease-seconds=20", "--query-timeout=20"], &[]),
        2,
        "--query-timeout must be less than the lease (20 s, --lease-seconds), not `20`",
    );
}

#[test]
fn a_first_delay_beyond_the_longest_is_warned_of() {
    let warnings = |args: &[&str]| resolve(args, &[]).unwrap().warnings;
    assert_eq!(
        warnings(&["--retry-backoff-seconds=7200"]),
        ["--retry-backoff-seconds: the first delay of 7200 s is cut to the longest, 3600 s"]
    );
    // Whoever only shortens the longest delay means it.
    assert_eq!(warnings(&["--retry-max-seconds=1"]), Vec::<String>::new());
}

#[test]
fn a_short_lease_brings_its_own_query_timeout() {
    let config = config_of(&["--lease-seconds=8"]);
    assert_eq!(config.query_timeout.as_secs(), 4);
    assert_eq!(config_of(&[]).query_timeout.as_secs(), 30);
}

#[test]
fn a_short_lease_brings_its_own_connect_timeout() {
    let config = config_of(&["--lease-seconds=8"]);
    assert_eq!(config.connect_timeout.as_secs(), 4);
    assert_eq!(config_of(&[]).connect_timeout.as_secs(), 10);
}

#[test]
fn a_lease_shorter_than_an_attempt_to_connect_is_warned_of() {
    let warnings = |args: &[&str]| resolve(args, &[]).unwrap().warnings;
    assert_eq!(
        warnings(&["--lease-seconds=8", "--connect-timeout=8"]),
        [
            "an attempt to connect may take 8 s but a lease only 8 s: a worker that has to connect again may lose its leases"
        ]
    );
    // Each host of several has its time.
    let args = [
        "--dsn=host=a,b,c",
        "--lease-seconds=8",
        "--connect-timeout=3",
    ];
    assert_eq!(explain(&args, &[]).unwrap().0.warnings.len(), 1);
}

#[test]
fn a_drain_shorter_than_a_handler_is_warned_of() {
    let warnings = |args: &[&str]| resolve(args, &[]).unwrap().warnings;
    assert_eq!(warnings(&[]), Vec::<String>::new());
    assert_eq!(
        warnings(&["--drain-timeout=5"]),
        [
            "a drain may take 5 s but a handler 30 s: a restart may kill handlers that are still running"
        ]
    );
}

#[test]
fn an_unknown_variable_is_warned_of_and_a_kubernetes_link_is_not() {
    let settings = resolve(
        &[],
        &[
            ("DISPATCHBOX_PROCESES", "3"),
            ("DISPATCHBOX_SERVICE_HOST", "10.0.0.1"),
            ("DISPATCHBOX_PORT", "tcp://10.0.0.1:8080"),
            ("DISPATCHBOX_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("DISPATCHBOX_MAX_PARALLEL", ""),
            ("DISPATCHBOX_ROUTE", "*=log"),
            ("DISPATCHBOX_ZZZ", "x"),
            ("OTHER", "x"),
        ],
    )
    .unwrap();

    assert_eq!(
        settings.warnings,
        [
            "the variable DISPATCHBOX_PROCESES is not a setting of this version; did you mean `DISPATCHBOX_PROCESSES`?",
            "the variable DISPATCHBOX_ROUTE has no effect: give routes by --route or in the file",
            "the variable DISPATCHBOX_ZZZ is not a setting of this version",
        ]
    );
    assert_eq!(settings.config, usual());
}

#[test]
fn the_dsn_is_taken_from_the_first_place_that_has_one() {
    let directory = TestDir::new();
    let write = |name: &str, text: &str| {
        let path = directory.file(name);
        fs::write(&path, text).unwrap();
        path
    };
    let by_flag_file = write("flag", " host=flagfile user=u dbname=d \n");
    let by_env_file = write("env", "host=envfile user=u dbname=d\n");
    let in_file = write("file", "host=filefile user=u dbname=d\n");
    let config = write(
        "c.toml",
        &format!("dsn = 'host=file user=u dbname=d'\n{ROUTE}"),
    );
    let indirect = write("i.toml", &format!("dsn_file = '{in_file}'\n{ROUTE}"));

    let mut args = vec![
        "--dsn=host=flag user=u dbname=d",
        "--dsn-file",
        &by_flag_file,
        "--config",
        &config,
    ];
    let mut env = vec![
        ("DISPATCHBOX_DSN", "host=env user=u dbname=d"),
        ("DISPATCHBOX_DSN_FILE", &by_env_file),
        ("DATABASE_URL", "postgres://u@url/d"),
        ("PGHOST", "pghost"),
        ("PGUSER", "u"),
        ("PGDATABASE", "d"),
    ];
    let host = |args: &[&str], env: &[(&str, &str)]| {
        let (settings, effective) = explain(args, env).unwrap();
        let source = effective
            .iter()
            .find(|setting| setting.name == "dsn")
            .unwrap()
            .source;
        (settings.dsn.identity(), source)
    };
    let is = |host: &str, source| (format!("{host}:5432/d"), source);

    assert_eq!(host(&args, &env), is("flag", Source::Flag));
    args.remove(0);
    assert_eq!(host(&args, &env), is("flagfile", Source::Flag));
    args.drain(..2);
    assert_eq!(host(&args, &env), is("env", Source::Environment));
    env.remove(0);
    assert_eq!(host(&args, &env), is("envfile", Source::Environment));
    env.remove(0);
    assert_eq!(host(&args, &env), is("file", Source::File));
    args[1] = &indirect;
    assert_eq!(host(&args, &env), is("filefile", Source::File));
    args.clear();
    assert_eq!(host(&args, &env), is("url", Source::Environment));
    env.remove(0);
    assert_eq!(host(&args, &env), is("pghost", Source::Environment));
    env.clear();
    check_refused(explain(&args, &env), 2, "no database is named: give --dsn");
}

#[test]
fn a_bad_dsn_is_blamed_on_its_place() {
    check_refused(
        explain(&["--dsn=hst=x"], &[]),
        2,
        "could not use --dsn: unknown keyword `hst`; did you mean `host`?",
    );
    check_refused(
        explain(&[], &[("DISPATCHBOX_DSN", "hst=x")]),
        2,
        "could not use DISPATCHBOX_DSN: unknown keyword `hst`; did you mean `host`?",
    );
    check_refused(
        explain(&["--dsn-file=/nonexistent"], &[]),
        2,
        "could not read --dsn-file `/nonexistent`: No such file or directory (os error 2)",
    );
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, format!("dsn = 'hst=x'\n{ROUTE}")).unwrap();
    check_refused(
        explain(&["--config", &path], &[]),
        78,
        &format!("could not use `dsn` in `{path}`: unknown keyword `hst`; did you mean `host`?"),
    );
}

#[test]
fn a_password_on_the_command_line_is_warned_of() {
    let n_warnings = |dsn: &str| explain(&["--dsn", dsn], &[]).unwrap().0.warnings.len();
    assert_eq!(n_warnings("host=h password=x"), 1);
    assert_eq!(n_warnings("postgres://u:x@h/d"), 1);
    assert_eq!(n_warnings("postgres://u@h/d"), 0);
    let env = [("DISPATCHBOX_DSN", "host=h password=x")];
    assert_eq!(explain(&[], &env).unwrap().0.warnings.len(), 0);
}

#[test]
fn settings_travel_to_the_workers_unchanged() {
    let settings = resolve(
        &[
            "--route=a=log",
            "--route=b=http://h/x",
            "--route=c=exec:/bin/true",
            "--batch-size=7",
            "--poll-interval=0.1",
        ],
        &[],
    )
    .unwrap();

    let line = serde_json::to_string(&(&settings.config, &settings.dsn)).unwrap();
    let (config, dsn): (Config, dispatchbox::store::dsn::Dsn) =
        serde_json::from_str(&line).unwrap();

    assert_eq!((config, dsn), (settings.config, settings.dsn));
    assert!(!line.contains('\n'));
}
