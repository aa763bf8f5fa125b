//! The page in a real browser: what is seen, clicked, legible, and that strangers' text stays text.

use crate::support::{Browser, Daemon, TestDb};

#[test]
fn the_page_is_served_with_a_policy_that_lets_nothing_else_run() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    let browser = Browser::start();

    browser.open(&format!("http://127.0.0.1:{}/", daemon.http_port()));
    browser.wait_text("h1", "Dispatchbox");

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
    assert_eq!(refused, serde_json::json!([true, true, true]));
}
