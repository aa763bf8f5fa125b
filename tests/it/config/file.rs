//! The configuration file: its form, its routes, and how either is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::cli::settings::{self, Env};
use dispatchbox::domain::config::{Config, HandlerSpec};
use dispatchbox::domain::event::Event;
use dispatchbox::domain::retry::RetryPolicy;
use dispatchbox::handlers::Handlers;
use serde_json::{Value, json};

use super::{ROUTE, check_refused, config_of, from_file, resolve, run_args};
use crate::support::TestDir;

fn handler(kind: &str, settings: Value) -> HandlerSpec {
    HandlerSpec {
        kind: kind.to_owned(),
        settings,
    }
}

/// The file's refusals name its path, which the test does not know beforehand.
#[track_caller]
pub(super) fn check_file_refused(text: &str, expected: &str) {
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
    assert_eq!(http.patterns, ["order.*"]);
    assert_eq!(
        http.handler,
        handler(
            "http",
            json!({
                "url": "https://crm.example/hooks",
                "url_source": "route",
                "dead_statuses": [404, 410],
            })
        )
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
    let command = json!({ "command": ["/usr/bin/send-mail", "--fast"] });
    assert_eq!(exec.handler, handler("exec", command));
    assert_eq!(
        (exec.timeout.as_secs(), exec.max_parallel, exec.retry),
        (20, None, inherited)
    );
    assert_eq!(log.handler, HandlerSpec::named("log"));
}

#[test]
fn a_url_may_stand_in_a_file_or_a_variable_and_is_shown_nowhere_then() {
    let directory = TestDir::new();
    let url = "https://me:s3cr3t@hooks.example/services/s3cr3t?key=s3cr3t";
    fs::write(directory.file("url"), format!("{url}\n")).unwrap();
    fs::write(directory.file("bad"), "s3cr3t\n").unwrap();
    fs::write(directory.file("empty"), " \n").unwrap();
    let path = directory.file("c.toml");
    let explain = |key: &str| {
        let text = format!("[[route]]\nevent_type = '*'\nhandler = 'http'\n{key}\n");
        fs::write(&path, text).unwrap();
        let args = run_args(&["--dsn=host=h", "--config", &path]);
        let env = Env::from([("HOOK".to_owned(), url.to_owned())]);
        settings::explain(&args, &env, &Handlers::default())
    };
    let file = |name: &str| format!("url_file = '{}'", directory.file(name));

    for (key, source) in [
        ("url_env = 'HOOK'".to_owned(), json!("environment")),
        (file("url"), json!({ "file": directory.file("url") })),
    ] {
        let (settings, effective) = explain(&key).unwrap();
        let dead_statuses = [400, 410, 413, 415, 422];
        let expected = handler(
            "http",
            json!({ "url": url, "url_source": source, "dead_statuses": dead_statuses }),
        );
        assert_eq!(settings.config.routes[0].handler, expected);
        let route = effective.iter().find(|one| one.name == "route").unwrap();
        assert_eq!(route.value, "*=https://hooks.example/…");
    }
    for (name, expected) in [
        ("bad", "the URL has no scheme that can be used"),
        ("empty", "it is empty"),
    ] {
        let refusal = explain(&file(name)).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!refusal.contains("s3cr3t"), "{refusal}");
    }
}

#[test]
fn a_proxy_of_the_environment_that_is_not_used_is_told_of() {
    let warnings = |route: &str, variable: (&str, &str)| {
        let settings = resolve(&[route], &[variable]).unwrap();
        settings.warnings.join("\n")
    };
    let proxy = ("https_proxy", "http://me:s3cr3t@proxy:3128");

    let told = warnings("--route=*=http://host/", proxy);
    assert!(
        told.contains("https_proxy in the environment has no effect"),
        "{told}"
    );
    assert!(!told.contains("s3cr3t"), "{told}");
    assert_eq!(warnings("--route=*=log", proxy), "");
    assert_eq!(warnings("--route=*=http://host/", ("https_proxy", "")), "");
    assert_eq!(warnings("--route=*=http://host/", ("no_proxy", "*")), "");
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
        .map(dispatchbox::domain::config::RouteSpec::name)
        .collect();
    assert_eq!(patterns, ["a", "b.*", "*"]);
    let command = json!({ "command": ["/bin/true", "x y"] });
    assert_eq!(config.routes[1].handler, handler("exec", command));
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
fn a_route_may_have_a_name_and_several_patterns() {
    let route = |more: &str| format!("[[route]]\nhandler = 'log'\n{more}\n");
    let named = route("name = 'crm'\nevent_type = ['order.*', 'invoice.paid']");

    let config = from_file(&format!("{named}{}", route("event_type = '*'"))).unwrap();

    let [crm, rest] = config.routes.as_slice() else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(crm.name(), "crm");
    assert_eq!(crm.patterns, ["order.*", "invoice.paid"]);
    assert_eq!((rest.name(), rest.name.as_deref()), ("*", None));
    for (routes, expected) in [
        (
            named.repeat(2),
            "route `crm`: two routes have this name (in FILE)",
        ),
        (
            format!("{named}{}", route("event_type = 'crm'")),
            "route `crm`: two routes have this name (in FILE)",
        ),
        (
            route("event_type = '*'\nname = 'a b'"),
            "route `a b`: a route's name consists of letters, digits, `_`, `-` and `.` (in FILE)",
        ),
        (
            route("event_type = '*'\nname = 'other'"),
            "route `other`: this is what the metrics call events that no route takes (in FILE)",
        ),
        (
            route("event_type = []"),
            "route 1 has `event_type`, which must be one text in quotes, or a list of 1 to 100 of them (in FILE)",
        ),
        (
            route("event_type = ['a', 'b*']"),
            "route `b*`: `*` may only stand alone, or at the end after a dot, as in `order.*` (in FILE)",
        ),
    ] {
        check_file_refused(&routes, expected);
    }

    let covered = route("event_type = ['order.*', 'invoice.paid', 'invoice.paid', 'a']");
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, format!("{named}{covered}")).unwrap();
    let (settings, effective) = super::explain(&["--dsn=host=h", "--config", &path], &[]).unwrap();
    let shown: Vec<&str> = effective
        .iter()
        .filter(|one| one.name == "route")
        .map(|one| one.value.as_str())
        .collect();
    assert_eq!(shown[0], "order.*, invoice.paid=log (name crm)");
    assert_eq!(
        settings.warnings[0],
        "route `order.*` gets nothing by its pattern `order.*`: `order.*` stands before it and takes all of that"
    );
    assert_eq!(settings.warnings.len(), 3);
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
        "--route has the route `*`: there is no handler `lgo`; did you mean `log`?; there are `log`, `exec`, `http`",
    );
    for (handler, meant) in [("hhtp://x", "http"), ("exce:x", "exec")] {
        let route = format!("--route=*={handler}");
        let refusal = resolve(&[&route], &[]).unwrap_err().render();
        let meant = format!("; did you mean `{meant}`?\n");
        assert!(refusal.contains(&meant), "{refusal}");
    }
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
    check_file_refused(
        &of("http", ""),
        "route 1 needs `url = \"…\"`, or `url_file` or `url_env` where the URL is a secret (in FILE)",
    );
    check_file_refused(
        &of("http", "url='http://x'\nurl_env='X'"),
        "route 1 has `url` and `url_env`, of which one alone may say where to (in FILE)",
    );
    check_file_refused(
        &of("http", "url_env='X'"),
        "route 1 has `url_env`, but the variable `X` is not set (in FILE)",
    );
    check_file_refused(
        &of("http", "url_file='/nonexistent'"),
        "route 1 has `url_file`, but `/nonexistent` cannot be used: No such file or directory (os error 2) (in FILE)",
    );
    check_file_refused(
        &of("http", "url_file=3"),
        "route 1 has `url_file`, which must be one text in quotes, not of the type integer (in FILE)",
    );
    check_file_refused(
        &route("event_type=['a', 3]\nhandler='log'"),
        "route 1 has `event_type`, which must be one text in quotes, or a list of 1 to 100 of them (in FILE)",
    );
    check_file_refused(
        &of("exec", "url_file='/x'\ncommand=['/bin/true']"),
        "route 1 has `url_file`, which the handler `exec` does not take (in FILE)",
    );
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
        "route 1 has the unknown key `timout_seconds`; did you mean `timeout_seconds`?; known are name, event_type, handler, url, url_file, url_env, format, source, method, content_type, headers, auth, sign, done_statuses, dead_statuses, ca_file, client_cert_file, client_key_file, private_addresses, command, timeout_seconds, max_parallel, retry (in FILE)",
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
        "route 1 has the unknown key `backoff`; did you mean `backoff_seconds`?; known are max_attempts, backoff_seconds, multiplier, max_seconds, jitter (in FILE)",
    );
    check_file_refused(
        &of("http", "url='http://x/'\ndead_statuses=[200]"),
        "route 1 needs a list of statuses from 300 to 599 in dead_statuses (in FILE)",
    );
    check_file_refused(
        &of("htp", "url='http://x'"),
        "route `*`: there is no handler `htp`; did you mean `http`?; there are `log`, `exec`, `http` (in FILE)",
    );
    check_file_refused(
        &of("nobody", ""),
        "route `*`: there is no handler `nobody`; there are `log`, `exec`, `http` (in FILE)",
    );
}
