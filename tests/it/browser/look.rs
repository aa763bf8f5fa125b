//! What an operator came for is in sight: in cards, charts, table and dialog, and what to do is
//! said.

use serde_json::json;

use super::{address, insert_dead, visit};
use crate::support::{Browser, Daemon, TestDb, wait_until};

/// An error whose useful words stand at its end.
const ERROR: &str = "POST http://127.0.0.1:9911/mixed: 422 Unprocessable Entity: unprocessable: customer 4711 is unknown";

/// Changes each further answer about the daemon's state by this script, which knows it as `status`.
fn answer_with(browser: &Browser, change: &str) {
    browser.script(&format!(
        "const ask = window.fetch;
         window.fetch = async (path, options) => {{
           const answer = await ask(path, options);
           if (path !== 'api/status') return answer;
           const status = await answer.json();
           {change};
           return new Response(JSON.stringify(status));
         }}"
    ));
}

#[test]
fn an_event_can_be_retried_without_scrolling_however_long_it_is() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", &"cause\n".repeat(100), 3);
    db.execute(
        "UPDATE outbox_event SET payload = (SELECT jsonb_agg(i) FROM generate_series(1, 200) i)",
    );
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-table", "order/1");
    browser.click("#dead-table .link");
    browser.wait_text("#detail-payload", "1");

    for (width, height) in [(1280, 1000), (360, 640)] {
        browser.resize(width, height);
        let is_on_top = browser.script(
            "return ['detail-retry', 'detail-discard'].map((id) => {
               const button = document.getElementById(id);
               const { x, y, width, height } = button.getBoundingClientRect();
               return document.elementFromPoint(x + width / 2, y + height - 1) === button;
             })",
        );
        assert_eq!(is_on_top, json!([true, true]), "{width} px");
    }
}

#[test]
fn an_event_says_its_times_both_ways_and_its_aggregate_as_the_command_line_does() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", ERROR, 3);
    db.execute("UPDATE outbox_event SET finished_at = '2026-01-02 03:04:05+00'");
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.devtools(
        "Emulation.setTimezoneOverride",
        json!({ "timezoneId": "UTC" }),
    );

    browser.wait_text("#dead-table", "order/1");
    browser.click("#dead-table .link");

    browser.wait_text("#detail-facts", "order/1");
    browser.wait_text("#detail-facts", "3 min ago");
    browser.wait_text("#detail-facts", "Jan 2, 2026, 03:04:05");
}

#[test]
fn the_table_has_room_for_an_error_and_bounds_a_long_type() {
    let db = TestDb::new();
    let long = "a.long.event.type".repeat(18);
    insert_dead(&db, 1, &long, ERROR, 3);
    insert_dead(&db, 1, "order.created", ERROR, 2);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-table", "order.created");

    for (width, height) in [(1280, 1000), (900, 1000), (360, 740)] {
        browser.resize(width, height);
        let cells = browser.script(
            "const row = document.querySelector('#dead-table .clamp[title^=\"a.long\"]').closest('tr');
             const [type, error] = [2, 6].map((at) => row.querySelector(`td:nth-child(${at}) .clamp`));
             const isWhole = (one) => one.scrollHeight <= one.clientHeight + 1;
             const lines = (one) => Math.round(one.clientHeight / parseFloat(getComputedStyle(one).lineHeight));
             return [lines(type), type.title, lines(error) <= 3, isWhole(error)];",
        );
        // Elsewhere even three lines are too few for this one.
        let is_whole = width == 1280;
        assert_eq!(cells, json!([2, long, true, is_whole]), "{width} px");
    }
}

#[test]
fn a_card_says_what_it_does_not_know_and_what_may_still_wait() {
    let db = TestDb::with_events(1);
    db.execute("UPDATE outbox_event SET status = 'retry', attempts = 1, next_run_at = now() + interval '1 hour'");
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    browser.wait_text("#oldest", "Nothing is due");
    assert!(!browser.text("#oldest").contains("waiting"));

    answer_with(&browser, "status.backlog = null");
    for card in ["#backlog", "#oldest"] {
        browser.wait_text(card, "Not counted yet");
        let text = browser.text(card);
        assert!(
            !text.contains("waiting") && !text.contains("due events"),
            "{text}"
        );
    }
}

#[test]
fn a_chart_draws_a_single_point() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);

    answer_with(
        &browser,
        "status.history = [{ age_seconds: 300, done: 3, retry: 0, dead: 0, backlog: 7, oldest_due_age_seconds: 1 }]",
    );

    for card in ["#throughput", "#backlog", "#oldest"] {
        wait_until("its only point is drawn", || {
            browser.count(&format!("{card} .point")) == 1
        });
        assert_eq!(browser.count(&format!("{card} .line")), 0);
    }
    let size =
        browser.script("return document.querySelector('.point').getBoundingClientRect().width");
    assert!(size.as_f64().unwrap() >= 5.0, "{size}");
}

#[test]
fn a_type_looks_as_if_it_could_be_pressed() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", ERROR, 3);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-types", "order.created");
    let look = || {
        browser.script("for (const one of document.getAnimations()) one.finish()");
        browser.script(
            "const chip = document.querySelector('#dead-types button');
             const { color, borderColor, backgroundColor, cursor } = getComputedStyle(chip);
             return [chip.title, cursor, borderColor === color, backgroundColor]",
        )
    };

    let before = look();
    browser.hover("#dead-types button");
    let after = look();

    assert_eq!(before[0], json!("Show only these: order.created"));
    assert_eq!([&before[1], &before[2]], [&json!("pointer"), &json!(false)]);
    assert_eq!(after[2], json!(true), "{after}");
    assert_ne!(before[3], after[3]);
    browser.click("#dead-types button");
    wait_until("its title says what a second press does", || {
        look()[0] == json!("Show all types again")
    });
}

#[test]
fn whoever_may_not_look_from_elsewhere_is_told_how_to() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let browser = Browser::start();
    // A name that leads to this host, but that is no loopback name to the daemon.
    browser.open(&address(&daemon).replace("127.0.0.1", "elsewhere.localhost"));

    let tunnel = format!(
        "ssh -L 8080:127.0.0.1:{} elsewhere.localhost",
        daemon.http_port()
    );
    browser.wait_text("#state", "Refused");
    browser.wait_text("#banner", &tunnel);
    browser.wait_text("#banner", "give the daemon an --api-token-file");
}

#[test]
fn what_acts_on_all_stands_evenly_on_a_phone() {
    let db = TestDb::new();
    insert_dead(&db, 1151, "order.created", ERROR, 0);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#discard-all", "Discard all 1,151");

    browser.resize(360, 740);

    let heights = browser.script(
        "return ['retry-all', 'discard-all'].map((id) => document.getElementById(id).offsetHeight)",
    );
    assert_eq!(heights, json!([36, 36]));
}
