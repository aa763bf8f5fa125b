//! The command `publish`: what goes into the row, and what is refused.

use crate::support::{Cli, Daemon, TestDb, TestDir, wait_until};

const EVENT: [&str; 7] = [
    "publish",
    "--event-type",
    "order.created",
    "--aggregate-type",
    "order",
    "--aggregate-id",
    "1001",
];

fn publish(db: &TestDb) -> Cli {
    Cli::new(EVENT).args(["--dsn", &db.dsn()])
}

#[track_caller]
fn check_refused(args: &[&str], error: &str) {
    // Nothing is connected to: there is no such server.
    Cli::new(EVENT)
        .args(["--dsn", "host=/nonexistent"])
        .args(args.iter().copied())
        .stderr(format!(
            "error: {error}\nhint: `dispatchbox help publish` lists its options\n"
        ))
        .status(2)
        .check();
}

#[test]
fn the_id_is_printed_and_the_event_is_delivered() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();

    publish(&db).stdout("1\n").check();
    publish(&db).args(["--json"]).stdout("{\"id\":2}\n").check();

    wait_until("both are done", || db.count("done") == 2);
    drop(daemon);
    let row = "SELECT count(*) FROM outbox_event WHERE aggregate_type = 'order' AND aggregate_id = '1001' \
               AND event_type = 'order.created' AND payload = '{}' AND headers IS NULL";
    assert_eq!(db.number(row, &[]), 2);
}

#[test]
fn the_payload_reaches_the_server_as_it_was_given() {
    let db = TestDb::new();
    let payload =
        r#"{"big": 123456789012345678901234567890.10, "e": 1e400, "u": "\u00fc\ud83d\ude00"}"#;
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));

    publish(&db)
        .args(["--payload", payload, "--headers", "{\"trace\": \"x\"}"])
        .stdout("1\n")
        .check();
    publish(&db)
        .args(["--payload", "-"])
        .stdin(format!("{payload}\n"))
        .stdout("2\n")
        .check();
    publish(&db)
        .args(["--payload", &deep])
        .stdout("3\n")
        .check();
    publish(&db).args(["--payload=-5"]).stdout("4\n").check();

    let same = "SELECT count(*) FROM outbox_event WHERE payload::text = $1::text::jsonb::text";
    assert_eq!(db.number(same, &[&payload]), 2);
    assert_eq!(db.number(same, &[&deep]), 1);
    assert_eq!(db.number(same, &[&"-5"]), 1);
    let headers = "SELECT count(*) FROM outbox_event WHERE headers = '{\"trace\": \"x\"}'";
    assert_eq!(db.number(headers, &[]), 1);
}

#[test]
fn a_delayed_event_is_not_due_before() {
    let db = TestDb::new();

    publish(&db).args(["--after", "5m"]).stdout("1\n").check();

    let due = "SELECT count(*) FROM outbox_event WHERE next_run_at BETWEEN now() + interval '4 min' AND now() + interval '5 min'";
    assert_eq!(db.number(due, &[]), 1);
}

#[test]
fn what_is_no_json_is_refused_with_the_place() {
    check_refused(
        &["--payload", "{\"a\": }"],
        "--payload is not JSON: expected value at line 1 column 7",
    );
    check_refused(
        &["--payload", ""],
        "--payload is not JSON: EOF while parsing a value at line 1 column 0",
    );
    check_refused(
        &["--headers", "{\n x}"],
        "--headers is not JSON: key must be a string at line 2 column 2",
    );
    check_refused(
        &["--payload", "{} {}"],
        "--payload is not JSON: trailing characters at line 1 column 4",
    );
}

#[test]
fn json_that_postgresql_does_not_take_is_refused_by_name() {
    let db = TestDb::new();
    publish(&db)
        .args(["--payload", r#"{"a": "\u0000"}"#])
        .stderr(
            "error: PostgreSQL does not take --payload: unsupported Unicode escape sequence (\\u0000 cannot be converted to text)\n\
             hint: `dispatchbox help publish` lists its options\n",
        )
        .status(2)
        .check();
    assert_eq!(db.number("SELECT count(*) FROM outbox_event", &[]), 0);
}

#[test]
fn what_the_encoding_of_the_database_lacks_is_blamed_on_its_option() {
    let db = TestDb::in_encoding("LATIN1");
    let all = [
        ("--event-type", "t", "日本"),
        ("--aggregate-type", "t", "日本"),
        ("--aggregate-id", "1", "日本"),
        ("--payload", "{}", "\"日本\""),
        ("--payload", "{}", "\"\\u65e5\""),
        ("--headers", "{}", "{\"a\": \"日本\"}"),
    ];
    for (option, _, wrong) in all {
        let mut args = vec!["publish"];
        for (name, right, _) in all {
            if !args.contains(&name) {
                args.extend([name, if name == option { wrong } else { right }]);
            }
        }
        let said = Cli::new(args).args(["--dsn", &db.dsn()]).run();
        assert_eq!(said.status, 2, "{}", said.stderr);
        let blamed = format!("error: PostgreSQL does not take {option}: ");
        assert!(said.stderr.starts_with(&blamed), "{}", said.stderr);
    }
}

#[test]
fn what_names_the_event_must_not_be_empty() {
    Cli::new(["publish", "--event-type=", "--aggregate-type=a", "--aggregate-id=1", "--dsn=host=x"])
        .stderr("error: --event-type must not be empty\nhint: `dispatchbox help publish` lists its options\n")
        .status(2)
        .check();
    let said = Cli::new(["publish", "--event-type", "a"]).run();
    assert_eq!(said.status, 2);
    for missing in ["--aggregate-type", "--aggregate-id"] {
        assert!(said.stderr.contains(missing), "{}", said.stderr);
    }
    check_refused(
        &["--after", "5"],
        "--after must be a whole number with a unit: s, m, h, d or w, not `5`",
    );
    check_refused(
        &["--after", "1.5h"],
        "--after must be a whole number with a unit: s, m, h, d or w, not `1.5h`",
    );
    for headers in ["[1]", "7", " null", "\"x\""] {
        check_refused(
            &["--headers", headers],
            "--headers must be a JSON object, such as `{\"trace\": \"x\"}`",
        );
    }
}

#[test]
fn a_type_that_no_known_route_takes_is_said_and_written_nevertheless() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    let routes = "[[route]]\nevent_type = 'order.created'\nhandler = 'log'\n[[route]]\nevent_type = 'mail.*'\nhandler = 'log'\n";
    let config = format!("dsn = '{}'\n{routes}", db.dsn());
    std::fs::write(&path, &config).unwrap();
    let publish = |event_type: &str| {
        let said = Cli::new([
            "publish",
            "--aggregate-type=order",
            "--aggregate-id=1",
            "--config",
            &path,
            "--event-type",
            event_type,
        ])
        .run();
        assert_eq!(said.status, 0, "{}", said.stderr);
        said.stderr
    };

    assert_eq!(publish("order.created"), "");
    assert_eq!(publish("mail.sent"), "");
    assert_eq!(
        publish("order.creatd"),
        format!(
            "warning: no route in `{path}` takes the event type `order.creatd`; did you mean `order.created`?; \
             a daemon with these routes alone fails each of its attempts\n"
        )
    );
    assert_eq!(
        publish("invoice.paid"),
        format!(
            "warning: no route in `{path}` takes the event type `invoice.paid`; \
             a daemon with these routes alone fails each of its attempts\n"
        )
    );
    // Patterns are all that is needed: a secret of any route may be elsewhere.
    let secrets = "api_token_file = '/nowhere/token'\n";
    let hook = "[[route]]\nevent_type = 'crm.*'\nhandler = 'http'\n";
    let by_file = format!("{hook}url_file = '/nowhere/url'\n");
    let by_variable = format!("{hook}url_env = 'NOWHERE'\n").replace("crm", "erp");
    let of_request = format!(
        "{hook}url = 'http://h/'\nheaders = {{ X-Key = {{ file = '/nowhere/key' }} }}\n\
         auth = {{ bearer = {{ env = 'NOWHERE' }} }}\n\
         sign = {{ standard_webhooks = [{{ file = '/nowhere/signing' }}] }}\n"
    )
    .replace("crm", "shop");
    let hooks = format!("{by_file}{by_variable}{of_request}");
    std::fs::write(&path, format!("{secrets}{config}{hooks}")).unwrap();
    assert!(publish("order.creatd").starts_with("warning: no route in "));
    assert_eq!(publish("crm.created"), "");
    assert_eq!(publish("shop.created"), "");
    let explained = Cli::new(["explain", "1", "--config", &path]).run();
    assert_eq!(explained.status, 0, "{}", explained.stderr);
    assert!(
        explained.stdout.contains("order.created"),
        "{}",
        explained.stdout
    );
    // Where no route is known, a daemon's command line may name any.
    std::fs::write(&path, format!("dsn = '{}'\n", db.dsn())).unwrap();
    assert_eq!(publish("order.creatd"), "");
    assert_eq!(db.count("pending"), 8);
}
