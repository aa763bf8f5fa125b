//! What a producer wrote cannot turn, hide or join what an operator reads, and goes back to the
//! daemon as it is.

use std::fmt::Write as _;

use serde_json::json;

use super::{assert_quiet, visit};
use crate::support::{Browser, Daemon, TestDb};

/// All that is escaped, beside letters that stay: Hebrew, and an emoji that a joiner holds
/// together.
const WRITTEN: &str = "A\u{1b}[31m\u{85}\u{7f}\r\n\t\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                       \u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}\u{5d0}\u{1f469}\u{200d}\u{1f680}Z";

/// As the command line writes it.
const SHOWN: &str = r"A\x1b[31m\u{85}\x7f\r\n\t\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";

/// Names what stands raw in texts, titles, labels and fields; line breaks of the payload's layout
/// do not count.
const RAW: &str = r"
    const harmful = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/u;
    const texts = [...document.querySelectorAll('body *')].flatMap((one) => [
      ...[...one.childNodes].filter((node) => node instanceof Text && one.localName !== 'script').map((node) => node.data.replaceAll('\n', '')),
      ...[...one.attributes].filter(({ name }) => name !== 'data-shown').map(({ value }) => value), one.value ?? '',
    ]);
    return texts.filter((text) => harmful.test(text)).map((text) => JSON.stringify(text));";

/// Some dead events with this text wherever a producer may put one.
fn insert(db: &TestDb, text: &str) {
    db.client()
        .execute(
            "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, headers, status, attempts, last_error) \
             VALUES ($1::text, $1, $1, jsonb_build_object($1, $1), jsonb_build_object($1, $1), 'dead', 5, $1)",
            &[&text],
        )
        .unwrap();
}

#[track_caller]
fn assert_nothing_raw(browser: &Browser) {
    assert_eq!(browser.script(RAW), json!([]));
}

/// Texts are read by script: a browser's own notion of visible text knows nothing of marks.
#[track_caller]
fn assert_shows(browser: &Browser, selector: &str, text: &str) {
    let shown = browser.script(&format!(
        "return document.querySelector('{selector}').textContent"
    ));
    let shown = shown.as_str().unwrap();
    assert!(shown.contains(text), "{selector}: {shown:?}");
}

#[test]
fn what_turns_or_hides_text_is_shown_as_its_escape() {
    let db = TestDb::new();
    insert(&db, WRITTEN);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    let letters = "\u{5d0}\u{1f469}\u{200d}\u{1f680}Z";
    let shown = format!("{SHOWN}{letters}");

    browser.wait_text("#dead-table", "Retry");
    browser.wait_text("#dead-types", "A");
    for column in [2, 3, 6] {
        assert_shows(
            &browser,
            &format!("#dead-table td:nth-child({column})"),
            &shown,
        );
    }
    assert_shows(&browser, "#dead-types", &shown);
    assert_nothing_raw(&browser);

    browser.click("#dead-table .link");
    browser.wait_text("#detail-payload", "A");
    assert_shows(&browser, "#detail-facts", &shown);
    // A block of its own breaks the line, too.
    let in_block = shown.replace(r"\n", "\\n\n");
    assert_shows(&browser, "#detail-error", &in_block);
    for block in ["#detail-payload", "#detail-headers"] {
        assert_shows(&browser, block, &format!("{}{letters}\"", in_json(WRITTEN)));
    }
    assert_nothing_raw(&browser);
    assert_quiet(&browser, &daemon);
}

/// What stands in JSON is still JSON: PostgreSQL has escaped the controls of ASCII, the page the
/// rest.
fn in_json(text: &str) -> String {
    let mut json = String::new();
    for c in text.chars().take_while(|&c| c != '\u{5d0}') {
        match c {
            '\r' => json.push_str(r"\r"),
            '\n' => json.push_str(r"\n"),
            '\t' => json.push_str(r"\t"),
            c if c.is_ascii_graphic() => json.push(c),
            c => write!(json, "\\u{:04x}", u32::from(c)).unwrap(),
        }
    }
    json
}

#[test]
fn a_value_turns_nothing_beside_it_and_its_escapes_are_set_off() {
    let db = TestDb::new();
    insert(&db, "a\u{202e}\\u{202e}\u{5d0}");
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-table", "Retry");

    let isolated = browser.script(
        "return [...document.querySelectorAll('#dead-table .foreign, #dead-types .foreign')]
           .map((one) => getComputedStyle(one).unicodeBidi)",
    );
    let set_off = browser.script(
        "return [...document.querySelectorAll('#dead-table td:nth-child(2) .escaped')].map((one) => one.textContent)",
    );

    assert_eq!(
        isolated,
        json!(["isolate", "isolate", "isolate", "isolate"])
    );
    // The second one was written as it is shown.
    assert_eq!(set_off, json!([r"\u{202e}"]));
}

#[test]
fn a_filter_takes_a_type_as_it_is_and_not_as_it_is_shown() {
    let db = TestDb::new();
    let hostile = "order\u{202e}\n.created";
    insert(&db, hostile);
    insert(&db, r"order\u{202e}\n.created");
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-types", "order");
    browser.script(
        "const isTrue = (chip) => chip.querySelector('.escaped') !== null;
         [...document.querySelectorAll('#dead-types button')].find(isTrue).click()",
    );

    browser.wait_text("#dead-note", "1 event matches the filter");
    // The field holds the escape, and a press of the button means the same type still.
    browser.click("#filters [type=submit]");
    browser.wait_text("#dead-note", "1 event matches the filter");
    browser.click("#discard-all");
    browser.wait_text("#confirm", "event type is");
    assert_nothing_raw(&browser);
    browser.click("#confirm-do");
    browser.wait_text("#messages", "1 event is discarded");

    let archived: Vec<String> = db
        .client()
        .query("SELECT event_type FROM outbox_event_archive", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(archived, [hostile]);
    assert_quiet(&browser, &daemon);
}
