//! What the settings come to: flag before environment before file before default, the limits, and the file's errors.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use argh::{ArgsInfo as _, FlagInfoKind};
use dispatchbox::backoff::RetryPolicy;
use dispatchbox::cli::front::{self, Command, Parsed};
use dispatchbox::cli::run::RunArgs;
use dispatchbox::cli::settings::{self, Effective, Env, RunSettings, Source};
use dispatchbox::config::{self, Config, HandlerSpec};
use dispatchbox::error::UsageError;
use dispatchbox::event::Event;
use dispatchbox::handler::Handlers;

use crate::support::TestDir;

/// A route, so that a file is complete.
const ROUTE: &str = "[[route]]\nevent_type = '*'\nhandler = 'log'\n";

/// Each option with a value for flag, environment and file, and what it shows when nobody says anything.
#[rustfmt::skip]
const OPTIONS: &[(&str, &str, &str, &str, &str)] = &[
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
    ("http-host",             "::1",   "1.2.3.4", "'host'",    "0.0.0.0"),
    ("http-port",             "0",     "8081",    "8082",      "8080"),
    ("disable-http",          "",      "yes",     "true",      "false"),
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

/// The file's refusals name its path, which the test does not know beforehand.
#[track_caller]
fn check_file_refused(text: &str, expected: &str) {
    let err = from_file(text).unwrap_err();
    let shown = err.to_string();
    let start = shown.find("`/tmp/").unwrap();
    let end = start + 1 + shown[start + 1..].find('`').unwrap();
    assert_eq!(
        format!("{}FILE{}", &shown[..start], &shown[end + 1..]),
        expected
    );
    assert_eq!(err.exit_code(), 78);
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

/// Goal: no option is forgotten by one of the three places. Method: compare what argh knows with the table above.
#[test]
fn every_option_is_known_in_all_places() {
    let info = RunArgs::get_args_info();
    let flags: BTreeSet<&str> = info
        .flags
        .iter()
        .map(|flag| flag.long.trim_start_matches("--"))
        .collect();
    let elsewhere = ["help", "dsn", "dsn-file", "config", "route"];
    let in_table: BTreeSet<&str> = OPTIONS
        .iter()
        .map(|option| option.0)
        .chain(elsewhere)
        .collect();

    assert_eq!(flags, in_table);
}

#[test]
fn the_help_tells_the_real_defaults() {
    for flag in RunArgs::get_args_info().flags {
        let name = flag.long.trim_start_matches("--");
        let Some(&(.., default)) = OPTIONS.iter().find(|option| option.0 == name) else {
            continue;
        };
        if !matches!(flag.kind, FlagInfoKind::Switch) {
            let stands = flag.description.contains(&format!("[default: {default}]"))
                || flag
                    .description
                    .contains(&format!("[default: {default}, or"));
            assert!(stands, "{name}: {}", flag.description);
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
        ("max-batch-bytes", "1", "must be at least 64KiB, not `1`"),
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
        ("lease-seconds", "7.9", "must be at least 8, not `7.9`"),
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
        check_file_refused(
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
    check_refused(
        resolve(&["--retry-backoff-seconds=7200"], &[]),
        2,
        "--retry-backoff-seconds must be at most the longest delay (3600 s, --retry-max-seconds), not `7200`",
    );
}

#[test]
fn a_short_lease_brings_its_own_query_timeout() {
    let config = config_of(&["--lease-seconds=8"]);
    assert_eq!(config.query_timeout.as_secs(), 4);
    assert_eq!(config_of(&[]).query_timeout.as_secs(), 30);
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
            ("OTHER", "x"),
        ],
    )
    .unwrap();

    assert_eq!(
        settings.warnings,
        [
            "the variable DISPATCHBOX_PROCESES is not a setting of this version; did you mean `DISPATCHBOX_PROCESSES`?"
        ]
    );
    assert_eq!(settings.config, Config::default());
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
fn a_file_that_cannot_be_used_is_a_configuration_error() {
    check_refused(
        resolve(&["--config=/nonexistent"], &[]),
        78,
        "could not read the configuration file `/nonexistent`: No such file or directory (os error 2)",
    );
    check_refused(
        resolve(&[], &[("DISPATCHBOX_CONFIG", "/tmp")]),
        78,
        "could not read the configuration file `/tmp`: Is a directory (os error 21)",
    );
    check_file_refused(
        "proceses = 1",
        "unknown key `proceses` in FILE; did you mean `processes`?",
    );
    check_file_refused(
        "batch-size = 1",
        "unknown key `batch-size` in FILE; did you mean `batch_size`?",
    );
    check_file_refused("config = 'x'", "unknown key `config` in FILE");
    check_file_refused(
        "processes = [1]",
        "`processes` in FILE must be a single value, not of the type array",
    );
    check_file_refused(
        "route = 'x'",
        "`route` in FILE must be written as tables: [[route]]",
    );
    check_file_refused(
        "",
        "there is no route, so no event would be delivered (in FILE)",
    );
    check_file_refused(
        "processes = 2",
        "there is no route, so no event would be delivered (in FILE)",
    );
}

#[test]
fn a_syntax_error_shows_its_line_number_and_not_the_line() {
    for text in [
        "processes = 1\ndsn = 'password=hunter2\n",
        "processes = 1\ndsn = password=hunter2\n",
        "processes = 1\ndsn hunter2 = 3\n",
        "processes = 1\n'hunter2' 'x'\n",
    ] {
        let err = from_file(text).unwrap_err();
        let shown = err.to_string();
        assert!(
            shown.starts_with("could not parse the configuration file"),
            "{shown}"
        );
        assert!(shown.contains(", line 2: "), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(err.exit_code(), 78);
    }
}

#[test]
fn an_unreadable_file_is_a_configuration_error() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    check_refused(
        resolve(&["--config", &path], &[]),
        78,
        &format!(
            "could not read the configuration file `{path}`: stream did not contain valid UTF-8"
        ),
    );
    fs::write(&path, vec![b' '; 5 << 20]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    check_refused(
        resolve(&["--config", &path], &[]),
        78,
        &format!("could not read the configuration file `{path}`: it is larger than 4 MiB"),
    );
}

#[test]
fn the_routes_of_a_file_are_read_with_their_limits() {
    let config = from_file(
        r#"
        handler_timeout = 20
        max_attempts = 7
        [[route]]
        event_type = "order.*"
        handler = "http"
        url = "https://crm.example/hooks"
        timeout_seconds = 15
        max_parallel = 4
        dead_statuses = [404, 410]
        [route.retry]
        max_attempts = 8
        backoff_seconds = 1.5
        [[route]]
        event_type = "mail"
        handler = "exec"
        command = ["/usr/bin/send-mail", "--fast"]
        [[route]]
        event_type = "*"
        handler = "log"
        "#,
    )
    .unwrap();

    let [http, exec, log] = config.routes.as_slice() else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(http.pattern, "order.*");
    assert_eq!(
        http.handler,
        HandlerSpec::Http {
            url: "https://crm.example/hooks".to_owned(),
            dead_statuses: vec![404, 410]
        }
    );
    assert_eq!(http.timeout.as_secs(), 15);
    assert_eq!(http.max_parallel.unwrap().get(), 4);
    let inherited = RetryPolicy {
        max_attempts: 7,
        ..Config::default().retry
    };
    assert_eq!(
        http.retry,
        RetryPolicy {
            max_attempts: 8,
            backoff: std::time::Duration::from_millis(1500),
            ..inherited
        }
    );
    let command = ["/usr/bin/send-mail", "--fast"].map(str::to_owned).to_vec();
    assert_eq!(exec.handler, HandlerSpec::Exec { command });
    assert_eq!(
        (exec.timeout.as_secs(), exec.max_parallel, exec.retry),
        (20, None, inherited)
    );
    assert_eq!(log.handler, HandlerSpec::Log);
}

#[test]
fn the_routes_of_flags_stand_before_those_of_the_file() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, ROUTE).unwrap();
    let config = config_of(&[
        "--route=a=log",
        "--config",
        &path,
        "--route",
        "b.*=exec:/bin/true 'x y'",
    ]);

    let patterns: Vec<&str> = config
        .routes
        .iter()
        .map(|route| route.pattern.as_str())
        .collect();
    assert_eq!(patterns, ["a", "b.*", "*"]);
    let command = vec!["/bin/true".to_owned(), "x y".to_owned()];
    assert_eq!(config.routes[1].handler, HandlerSpec::Exec { command });
}

#[test]
fn a_file_without_routes_does_where_flags_or_the_program_bring_them() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, "processes = 2").unwrap();
    assert_eq!(
        config_of(&["--config", &path, "--route=*=log"])
            .processes
            .get(),
        2
    );

    let handlers = Handlers::default().on("*", |_: &Event| Ok(()));
    let args = run_args(&["--dsn=host=h", "--config", &path]);
    assert!(settings::resolve(&args, &Env::new(), &handlers).is_ok());
    assert!(settings::resolve(&args, &Env::new(), &Handlers::default()).is_err());
}

#[test]
fn a_route_that_cannot_work_is_refused() {
    check_refused(
        resolve(&["--route=order*=log"], &[]),
        2,
        "--route has the route `order*`: `*` may only stand alone, or at the end after a dot, as in `order.*`",
    );
    check_refused(
        resolve(&["--route=*=lgo"], &[]),
        2,
        "--route has the route `*`: there is no handler `lgo`; there are `log`, `exec`, `http`",
    );
    let route = |more: &str| format!("[[route]]\n{more}");
    check_file_refused(
        &route("handler='log'"),
        "route 1 needs `event_type = \"…\"` (in FILE)",
    );
    check_file_refused(
        &route("event_type='*'"),
        "route 1 needs `handler = \"…\"` (in FILE)",
    );
    let of =
        |handler: &str, more: &str| route(&format!("event_type='*'\nhandler='{handler}'\n{more}"));
    check_file_refused(&of("http", ""), "route 1 needs `url = \"…\"` (in FILE)");
    check_file_refused(
        &of("exec", ""),
        "route 1 needs `command = [\"PROGRAM\", \"ARGUMENT\"]` (in FILE)",
    );
    check_file_refused(
        &of("exec", "command = '/bin/true'"),
        "route 1 needs `command = [\"PROGRAM\", \"ARGUMENT\"]` (in FILE)",
    );
    check_file_refused(
        &of("log", "url='http://x'"),
        "route 1 has `url`, which the handler `log` does not take (in FILE)",
    );
    check_file_refused(
        &of("log", "timout_seconds=1"),
        "route 1 has the unknown key `timout_seconds`; did you mean `timeout_seconds`? (in FILE)",
    );
    check_file_refused(
        &of("log", "max_parallel=0"),
        "route 1 has `max_parallel`, which must be at least 1, not `0` (in FILE)",
    );
    check_file_refused(
        &of("log", "[route.retry]\njitter=2"),
        "route 1 has `jitter`, which must be at most 1, not `2` (in FILE)",
    );
    check_file_refused(
        &of("log", "[route.retry]\nbackoff=2"),
        "route 1 has the unknown key `backoff` (in FILE)",
    );
    check_file_refused(
        &of("log", "[route.retry]\nbackoff_seconds=4000"),
        "route 1 has a first delay of 4000 s, which is more than its longest, 3600 s (max_seconds) (in FILE)",
    );
    check_file_refused(
        &of("http", "url='http://x/'\ndead_statuses=[200]"),
        "route 1 needs a list of statuses from 300 to 599 in dead_statuses (in FILE)",
    );
    check_file_refused(
        &of("nobody", ""),
        "route `*`: there is no handler `nobody`; there are `log`, `exec`, `http` (in FILE)",
    );
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
