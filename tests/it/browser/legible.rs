//! Legible for everybody: contrast, and the width of a phone, in both color schemes.

use serde_json::{Value, json};

use super::{insert_dead, visit};
use crate::support::{Browser, Daemon, TestDb};

/// Lists the texts whose contrast is below 4.5.
const CONTRAST: &str = include_str!("contrast.js");

const SIZES: [(u32, u32); 2] = [(1280, 900), (360, 740)];

#[test]
fn every_text_has_contrast_and_nothing_is_wider_than_a_phone() {
    let db = TestDb::new();
    let long = "an_error_without_any_place_to_break_it_".repeat(8);
    insert_dead(&db, 30, "order.created", &long, 1);
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    browser.wait_text("#dead-types", "order.created");

    check(&browser, "the page");

    browser.click("#dead-types button");
    browser.click("#dead-table .link");
    browser.wait_text("#detail-payload", "\"n\"");
    check(&browser, "an event");

    browser.click("#detail-discard");
    browser.wait_text("#confirm", "outbox_event_archive");
    check(&browser, "a question");
    browser.click("#confirm-cancel");
    browser.click("#detail-close");

    browser.fill("#filters [name=event_type]", "no.such.type");
    browser.click("#filters [type=submit]");
    browser.wait_text("#dead-empty", "No dead event matches");
    check(&browser, "nothing found");

    browser.script(
        "document.querySelector('#token').showModal();
         document.querySelector('#token-trouble').textContent = 'The daemon did not accept this token.'",
    );
    check(&browser, "the token's question");
    browser.script("document.querySelector('#token').close()");

    drop(daemon);
    browser.wait_text("#state", "Unreachable since");
    check(&browser, "a daemon that is gone");
}

#[test]
fn the_check_of_contrast_sees_what_cannot_be_read() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = visit(&daemon);
    assert_eq!(browser.script(CONTRAST), json!([]));

    browser.script(
        "for (const [color, opacity] of [['rgb(150 150 150)', 1], ['black', 0.4]]) {
           const faint = document.createElement('p');
           faint.textContent = 'faint';
           faint.style.color = color;
           faint.style.opacity = opacity;
           document.querySelector('main').append(faint);
         }",
    );

    let found = browser.script(CONTRAST);
    assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
}

/// Looks at what is open now, in both schemes and at both sizes.
#[track_caller]
fn check(browser: &Browser, what: &str) {
    for scheme in ["light", "dark"] {
        browser.prefer_scheme(scheme);
        for (width, height) in SIZES {
            browser.resize(width, height);
            // Colors change over some tenths of a second: the end is looked at.
            browser.script("for (const one of document.getAnimations()) one.finish()");
            let faint = browser.script(CONTRAST);
            assert_eq!(faint, json!([]), "{what}, {scheme}, {width} px");
            let widths = browser.script(
                "return [document.documentElement, ...document.querySelectorAll('dialog[open]')]
                   .map((one) => [one.scrollWidth, one.clientWidth])",
            );
            for pair in widths.as_array().unwrap() {
                let [scrolled, seen] = [0, 1].map(|at| pair[at].as_u64().unwrap());
                assert!(scrolled <= seen, "{what}, {scheme}, {width} px: {pair}");
            }
            assert_ne!(widths, Value::Null);
        }
    }
    let (width, height) = SIZES[0];
    browser.resize(width, height);
}
