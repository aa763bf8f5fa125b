//! The page in a real browser: what is seen, clicked, legible, and that strangers' text stays text.

mod foreign;
mod legible;
mod look;
mod proxied;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::dev::cluster::StopMode;
use serde_json::json;

use crate::support::{Browser, Daemon, RunningDaemon, TestDb, TestDir, cluster, wait_until};

const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';
const ARROW_LEFT: char = '\u{e012}';

/// The token of [`daemon_with_token`].
const TOKEN: &str = "correct-horse-battery";

/// Whether a state looks different from what is merely muted, and which cells and labels of time
/// say "now".
const STALE: &str = "
    const color = (one) => getComputedStyle(one).color;
    const saysNow = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent).filter((text) => /\\bnow\\b/.test(text));
    const muted = color(document.querySelector('#identity'));
    return [
      [...document.querySelectorAll('#workers .status, #charts strong')].some((one) => color(one) !== muted),
      saysNow('#workers td'), saysNow('.plot text'),
    ]";

/// Opens the page of a daemon, and waits until it shows what the daemon says.
fn visit(daemon: &RunningDaemon) -> Browser {
    daemon.wait_ready();
    let browser = Browser::start();
    browser.open(&address(daemon));
    browser.wait_text("#state", "Ready");
    browser
}

fn address(daemon: &RunningDaemon) -> String {
    format!("http://127.0.0.1:{}/", daemon.http_port())
}

/// Starts a daemon whose API asks for [`TOKEN`].
fn daemon_with_token(db: &TestDb, directory: &TestDir) -> RunningDaemon {
    let file = directory.file("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::new(db)
        .route("*=log")
        .args(["--api-token-file", &file])
        .start();
    daemon.wait_ready();
    daemon
}

/// Types [`TOKEN`] into the open dialog, and waits until the page shows the daemon.
fn enter_token(browser: &Browser) {
    browser.fill("#token-input", TOKEN);
    browser.press(ENTER);
    browser.wait_text("#state", "Ready");
}

/// Inserts dead events of this type with this error, each created some minutes before the one after
/// it.
fn insert_dead(db: &TestDb, n: i32, event_type: &str, error: &str, minutes: i32) {
    db.client()
        .execute(
            "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, last_error, \
                                       last_error_at, finished_at, created_at) \
             SELECT 'order', i::text, $2, jsonb_build_object('n', i), 'dead', 5, $3, now(), now(), now() - make_interval(mins => $4 * i) \
             FROM generate_series(1, $1) i",
            &[&n, &event_type, &error, &minutes],
        )
        .unwrap();
}

fn archived(db: &TestDb) -> i64 {
    db.number("SELECT count(*) FROM outbox_event_archive", &[])
}

/// Nothing was complained about, and nobody else was asked for anything.
#[track_caller]
fn assert_quiet(browser: &Browser, daemon: &RunningDaemon) {
    assert_eq!(browser.console(), [] as [String; 0]);
    let address = address(daemon);
    let elsewhere: Vec<String> = browser
        .requested()
        .into_iter()
        .filter(|url| !url.starts_with(&address) && !url.starts_with("data:"))
        .collect();
    assert_eq!(elsewhere, [] as [String; 0]);
}

#[test]
fn the_page_is_served_with_a_policy_that_lets_nothing_else_run() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    assert_quiet(&browser, &daemon);

    let refused = browser.script(
        "const refuses = (act) => { try { act(); return false } catch { return true } };
         const script = document.createElement('script');
         script.append('globalThis.ran = true');
         document.body.append(script);
         return [
           globalThis.ran === undefined,
           refuses(() => { document.body.innerHTML = '<p>markup</p>' }),
           refuses(() => document.body.setAttribute('onclick', 'globalThis.ran = true')),
         ]",
    );

    assert_eq!(refused, json!([true, true, true]));
    // The check of the console would see it.
    assert!(browser.console().len() >= 3);
}

#[test]
fn a_dead_event_is_opened_retried_and_delivered() {
    let directory = TestDir::new();
    let receiver = directory.file("receiver");
    let db = TestDb::with_events(1);
    let daemon = Daemon::new(&db)
        .route(format!("order.*=exec:/bin/ls {receiver}"))
        .args(["--max-attempts", "1"])
        .start();
    wait_until("the event is dead", || db.count("dead") == 1);
    let browser = visit(&daemon);

    browser.wait_text("#dead-table", "order.created");
    browser.click("#dead-table .link");
    browser.wait_text("#detail-error", "No such file or directory");
    browser.wait_text("#detail-payload", r#""n": 1"#);
    fs::write(&receiver, "").unwrap();
    browser.click("#detail-retry");

    browser.wait_text("#messages", "Event 1 is pending again and due now.");
    wait_until("the event is delivered", || db.count("done") == 1);
    browser.wait_text("#dead-empty", "No dead events");
    browser.wait_text("#totals", "1 done");
    browser.wait_text("#workers", "running");
    assert_quiet(&browser, &daemon);
}

#[test]
fn an_event_is_discarded_after_a_question_and_stands_in_the_archive() {
    let db = TestDb::new();
    insert_dead(&db, 2, "order.created", "no route to host", 1);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    browser.click("[aria-label='Discard event 1']");
    browser.wait_text("#confirm", "outbox_event_archive");
    browser.click("#confirm-cancel");
    assert_eq!((db.count("dead"), archived(&db)), (2, 0));

    browser.click("[aria-label='Discard event 1']");
    browser.click("#confirm-do");
    browser.wait_text("#messages", "Event 1 is discarded");
    wait_until("its row has left the table", || {
        browser.count("#dead-table tbody tr") == 1
    });
    assert_eq!((db.count("dead"), archived(&db)), (1, 1));

    // Somebody else was faster: the answer is told, and nothing else happens.
    db.execute("UPDATE outbox_event SET status = 'done' WHERE id = 2");
    browser.click("[aria-label='Retry event 2']");
    browser.wait_text("#messages", "not found or already processed");
    assert_eq!(db.count("done"), 1);
}

#[test]
fn filters_and_pages_choose_and_an_action_on_all_takes_what_they_show() {
    let db = TestDb::new();
    insert_dead(&db, 30, "mail.welcome", "no such mailbox", 0);
    insert_dead(&db, 3, "order.created", "timed out after 15 s", 30);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    browser.wait_text("#page-range", "1–25 of 33");
    browser.click("#older");
    browser.wait_text("#page-range", "26–33 of 33");

    browser.fill("#filters [name=error]", "timed out");
    browser.press(ENTER);
    browser.wait_text("#dead-note", "3 events match the filter");
    // Created 30, 60 and 90 minutes ago.
    browser.click("#filters option[value='3600']");
    browser.wait_text("#dead-note", "1 event matches the filter");
    browser.click("#filters option[value='']");
    browser.wait_text("#dead-note", "3 events match the filter");

    browser.click("#retry-all");
    browser.wait_text("#confirm", "Retry 3 events?");
    browser.wait_text("#confirm", "error contains “timed out”");
    assert_eq!(db.count("dead"), 33);
    browser.click("#confirm-do");
    browser.wait_text("#messages", "3 events are pending again");
    wait_until("they are delivered", || db.count("done") == 3);
    browser.wait_text("#dead-empty", "No dead event matches this filter.");

    browser.click("#filters [type=reset]");
    browser.wait_text("#page-range", "of 30");
    browser.click("#dead-types button");
    browser.wait_text("#dead-note", "30 events match the filter");
    browser.click("#discard-all");
    browser.wait_text("#confirm", "event type is “mail.welcome”");
    browser.click("#confirm-do");
    browser.wait_text("#messages", "30 events are discarded");
    assert_eq!((db.count("dead"), archived(&db)), (0, 30));
    assert_quiet(&browser, &daemon);
}

#[test]
fn the_token_is_asked_for_once_and_kept_in_memory_alone() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", "no route to host", 1);
    let directory = TestDir::new();
    let daemon = daemon_with_token(&db, &directory);
    let browser = Browser::start();
    browser.open(&address(&daemon));

    browser.wait_text("#token", "--api-token-file");
    assert!(!browser.text("main").contains("order.created"));
    browser.fill("#token-input", &format!("“{TOKEN}”"));
    browser.press(ENTER);
    browser.wait_text("#token-trouble", "visible ASCII");
    browser.fill("#token-input", "something-else-altogether");
    browser.press(ENTER);
    browser.wait_text("#token-trouble", "did not accept");
    enter_token(&browser);
    browser.click("[aria-label='Retry event 1']");
    wait_until("the event is delivered", || db.count("done") == 1);
    assert_eq!(browser.count("dialog[open]"), 0);

    let kept =
        "return [localStorage.length, sessionStorage.length, document.cookie, location.href]";
    assert_eq!(browser.script(kept), json!([0, 0, "", address(&daemon)]));
    browser.open(&address(&daemon));
    browser.wait_text("#token", "--api-token-file");
    browser.click("#token-cancel");
    browser.wait_text("#state", "Token needed");
    browser.wait_text("#banner", "asks for its token");
    // Chromium notes each refusal by itself; there is nothing else to note.
    let console = browser.console();
    assert!(
        console
            .iter()
            .all(|line| line.contains("401 (Unauthorized)")),
        "{console:?}"
    );
}

#[test]
fn text_from_the_database_stays_text() {
    let hostile = r#"<img src=x onerror="globalThis.ran = true">"#;
    let db = TestDb::new();
    db.client()
        .execute(
            "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, headers, status, attempts, last_error) \
             VALUES ($1::text, $1, $1, jsonb_build_object($1, $1), jsonb_build_object($1, $1), 'dead', 5, $1)",
            &[&hostile],
        )
        .unwrap();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    browser.wait_text("#dead-table", hostile);
    browser.wait_text("#dead-types", hostile);
    browser.click("#dead-types button");
    browser.wait_text("#dead-note", "1 event matches the filter");
    browser.click("#retry-all");
    browser.wait_text("#confirm", hostile);
    browser.click("#confirm-cancel");
    browser.click("#dead-table .link");
    browser.wait_text("#detail-facts", hostile);
    browser.wait_text("#detail-error", hostile);
    let quoted = serde_json::to_string(hostile).unwrap();
    browser.wait_text("#detail-payload", &quoted);
    browser.wait_text("#detail-headers", &quoted);

    assert_eq!(browser.count("img"), 0);
    assert_eq!(browser.script("return globalThis.ran ?? null"), json!(null));
    assert_quiet(&browser, &daemon);
}

#[test]
fn numbers_are_shown_as_postgresql_prints_them() {
    let db = TestDb::new();
    db.execute(
        r#"INSERT INTO outbox_event (id, aggregate_type, aggregate_id, event_type, payload, status) VALUES
           (9007199254740993, 'order', '1', 'order.created',
            '{"huge": 1e400, "long": 123456789012345678901234567890, "exact": [1.10, -0.0, {}, []], "\\u005c\"": "a, {b}"}', 'dead')"#,
    );
    let payload: String = db
        .client()
        .query_one("SELECT payload::text FROM outbox_event", &[])
        .unwrap()
        .get(0);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    browser.click("[aria-label='Open event 9007199254740993']");
    browser.wait_text("#detail-payload", "123456789012345678901234567890");

    let shown = browser.script("return document.querySelector('#detail-payload').textContent");
    let dense = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(dense(shown.as_str().unwrap()), dense(&payload));
    browser.click("#detail-retry");
    wait_until("the event is delivered", || db.count("done") == 1);
}

#[test]
fn a_keyboard_is_enough() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", "no route to host", 1);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    let focused = || browser.script("return document.activeElement.getAttribute('aria-label')");
    browser.wait_text("#dead-table", "order.created");

    browser.script("document.querySelector('#dead-table .link').focus()");
    browser.press(ENTER);
    browser.wait_text("#detail", "no route to host");
    browser.press(ESCAPE);
    wait_until("the dialog is closed", || {
        browser.count("dialog[open]") == 0
    });
    assert_eq!(focused(), json!("Open event 1"));

    // A step of the history ends every five seconds.
    browser.script("document.querySelector('#throughput svg').focus()");
    wait_until("there is a moment to read", || {
        browser.press(ARROW_LEFT);
        browser.text("#throughput .readout").contains("/s done")
    });
}

#[test]
fn a_chart_tells_the_moment_under_the_pointer() {
    let db = TestDb::with_events(20);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    wait_until("the first step of the history is drawn", || {
        browser.count("#throughput .line, #throughput .point") > 0
    });
    browser.hover("#throughput svg");

    browser.wait_text("#throughput .readout", "/s done");
    assert_quiet(&browser, &daemon);
}

#[test]
fn a_daemon_that_is_gone_is_told_and_found_again() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", "no route to host", 1);
    let mut daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    let port = daemon.http_port().to_string();
    browser.wait_text("#dead-table", "order.created");

    assert_eq!(daemon.terminate(), 0);
    browser.wait_text("#state", "Unreachable since");
    browser.wait_text("#banner", "Next try in");
    browser.wait_text("#banner", "The daemon has not answered since ");
    browser.wait_text("#banner", "What is shown is as of ");
    assert_eq!(
        browser.count("#charts[data-stale], #workers[data-stale], #dead[data-stale]"),
        3
    );
    browser.wait_text("#dead-count", "1 event, as of ");
    assert_eq!(browser.script(STALE), json!([false, [], []]));
    browser.click("[aria-label='Retry event 1']");
    browser.wait_text("#messages", "not retried: The daemon does not answer.");

    let _next = Daemon::new(&db).route("*=log").port(&port).start();
    // On a busy machine the page has found it before the button can be clicked.
    browser.script(
        "const button = document.getElementById('banner-action'); if (button.offsetParent) button.click(); return null",
    );
    wait_until("the page has found it", || {
        browser.text("#state") == "Ready" && browser.count("#banner[hidden]") == 1
    });
    wait_until("nothing is marked as old", || {
        browser.count("[data-stale]") == 0 && browser.text("#dead-count") == "1 event"
    });
}

#[test]
fn a_database_that_is_away_is_told_beside_what_was_there() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    insert_dead(&db, 1, "order.created", "no route to host", 1);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-table", "order.created");

    server.stop(StopMode::Immediate).unwrap();
    browser.wait_text("#state", "Not ready: database not connected");
    browser.wait_text("#state-detail", "could not connect to the database");
    browser.wait_text("#dead-note", "Not refreshed: database unavailable.");
    browser.wait_text("#dead-table", "order.created");
    browser.wait_text("#dead-count", "1 event, as of ");
    wait_until("its figures are marked as old", || {
        browser.count(
            "#backlog[data-stale], #oldest[data-stale], #dead-types[data-stale], #dead[data-stale]",
        ) == 4
    });
    browser.wait_text("#oldest .aside", "Nothing is due, counted ");

    server.start_again().unwrap();
    browser.wait_text("#state", "Ready");
    wait_until("all is fresh again", || {
        browser.text("#dead-note").is_empty() && browser.count("[data-stale]") == 0
    });
}

#[test]
fn one_event_is_no_plural() {
    let db = TestDb::with_events(1);
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute("SELECT FROM outbox_event FOR UPDATE", &[])
        .unwrap();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    wait_until("it is counted", || {
        browser.text("#backlog .value") == "1 due event"
    });

    lock.commit().unwrap();
    wait_until("none is left", || {
        browser.text("#backlog .value") == "0 due events"
    });
    // Before that its outcome is on its way, and would be written over what follows.
    wait_until("it is done", || db.count("done") == 1);
    db.execute("UPDATE outbox_event SET status = 'retry', next_run_at = now() + interval '1 hour'");
    browser.wait_text("#oldest .aside", "Nothing is due; 1 waits for its time");
}
