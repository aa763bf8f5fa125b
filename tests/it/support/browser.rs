//! A real browser: Chromium without a window, driven by its driver over W3C WebDriver.
//!
//! The client is our own, since a test needs only a dozen calls of WebDriver over HTTP. Clicks and
//! keys are the browser's own, so that a control which is covered, disabled or out of reach fails
//! the test.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::directory::TestDir;
use super::{process, signal_pid, wait_until};

const MISSING: &str = "Chromium or its driver is missing: scripts/install-test-tools installs them \
                       (apt-get install chromium chromium-driver)";

/// The key under which WebDriver hands out an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A busy machine may take this long to start a browser, or to draw in one.
const CALL_MAX: Duration = Duration::from_mins(1);

/// How often a browser is started before the test fails.
const STARTS: usize = 3;

/// A browser with one tab. Dropping it ends every process that belongs to it.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    directory: TestDir,
}

impl Browser {
    /// Starts a driver on a free port, and a browser with a profile of its own.
    pub fn start() -> Browser {
        let directory = TestDir::new();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(MISSING);
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let rest = line.split_once("successfully on port ")?.1;
                rest.trim_end_matches('.').parse().ok()
            })
            .expect("the driver says its port");
        // A process that writes into a pipe without a reader blocks when the pipe is full.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(CALL_MAX))
            .build()
            .new_agent();
        let mut browser = Browser {
            driver,
            agent,
            session: format!("http://127.0.0.1:{port}/session"),
            directory,
        };
        // A driver alone starts as well, and says only now that it finds no browser.
        // A browser sometimes exits while it starts.
        let mut started = browser.try_post("", browser.capabilities());
        for _ in 1..STARTS {
            if started.is_err() {
                started = browser.try_post("", browser.capabilities());
            }
        }
        let session = started.unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        let id = session["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    fn capabilities(&self) -> Value {
        let profile = format!("--user-data-dir={}", self.directory.file("profile"));
        let arguments = [
            "--headless=new",
            // Chromium refuses to run as root with its sandbox, and small machines have a small
            // /dev/shm.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            &profile,
        ];
        json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}})
    }

    /// Opens an address, with the window as wide as a desk's.
    pub fn open(&self, url: &str) {
        self.resize(1280, 900);
        self.post("/url", json!({ "url": url }));
    }

    /// Gives the page a window of this size, however small; a browser's own window has a least
    /// width.
    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// Lets the page believe that the person prefers `light` or `dark`.
    pub fn prefer_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Runs a function body in the page, by the driver and so outside the page's policy, and
    /// returns its result.
    #[track_caller]
    pub fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", json!({"script": body, "args": []}))
    }

    /// Clicks the first element that matches, as soon as there is one that can be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.until_done(selector, "click", |browser, element| {
            browser.try_post(&format!("/element/{element}/click"), json!({}))
        });
    }

    /// Replaces the text of the first input that matches.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.until_done(selector, "fill", |browser, element| {
            browser.try_post(&format!("/element/{element}/clear"), json!({}))?;
            browser.try_post(
                &format!("/element/{element}/value"),
                json!({ "text": text }),
            )
        });
    }

    /// Presses a key on the element that has the focus; WebDriver has a character for each key that
    /// prints none.
    #[track_caller]
    pub fn press(&self, key: char) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keys = json!([{"type": "key", "id": "keys", "actions": actions}]);
        self.post("/actions", json!({ "actions": keys }));
    }

    /// Moves the pointer over the middle of the first element that matches.
    #[track_caller]
    pub fn hover(&self, selector: &str) {
        let element = self.find(selector).expect("an element to hover over");
        let origin = json!({ ELEMENT: element });
        let moves =
            json!([{"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0}]);
        let pointer = json!([{"type": "pointer", "id": "mouse", "actions": moves}]);
        self.post("/actions", json!({ "actions": pointer }));
    }

    /// The text of the first element that matches, as it is seen: hidden parts are left out. Empty
    /// when there is none.
    pub fn text(&self, selector: &str) -> String {
        let Some(element) = self.find(selector) else {
            return String::new();
        };
        // An element may be replaced between the two calls.
        let text = self.get(&format!("/element/{element}/text"));
        text.ok()
            .and_then(|text| text.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Waits until the first element that matches shows this text.
    #[track_caller]
    pub fn wait_text(&self, selector: &str, text: &str) {
        wait_until(&format!("`{text}` in {selector}"), || {
            self.text(selector).contains(text)
        });
    }

    /// How many elements match.
    pub fn count(&self, selector: &str) -> usize {
        let found = self.post("/elements", by(selector));
        found.as_array().unwrap().len()
    }

    /// What the console has said since the last call: the page's errors, the browser's, and
    /// violations of a policy.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The addresses that pages have asked for since the last call; the browser's own start page is
    /// none of them.
    pub fn requested(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "performance"}));
        let entries = entries.as_array().unwrap().iter();
        entries
            .filter_map(|entry| {
                let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
                let message = &message["message"];
                let is_request = message["method"] == "Network.requestWillBeSent";
                let url = message["params"]["request"]["url"].as_str()?;
                let document = message["params"]["documentURL"].as_str()?;
                (is_request && !document.starts_with("chrome:")).then(|| url.to_owned())
            })
            .collect()
    }

    /// A command of the browser's own tools.
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            json!({"cmd": command, "params": params}),
        )
    }

    /// Its processes: the driver, what descends from it, and every process that has left that
    /// family but works on its profile.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = vec![self.driver.id()];
        let mut at = 0;
        while at < pids.len() {
            pids.extend(process::children(pids[at]));
            at += 1;
        }
        pids.extend(process::with_argument(&self.directory.file("profile")));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn find(&self, selector: &str) -> Option<String> {
        let found = self.try_post("/element", by(selector)).ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    /// Does something with an element until the driver no longer says that it is missing, stale,
    /// covered or disabled.
    #[track_caller]
    fn until_done(
        &self,
        selector: &str,
        verb: &str,
        mut act: impl FnMut(&Browser, &str) -> Result<Value, Value>,
    ) {
        wait_until(&format!("{selector} can be used ({verb})"), || {
            self.find(selector)
                .is_some_and(|element| act(self, &element).is_ok())
        });
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        self.try_post(path, body)
            .unwrap_or_else(|error| panic!("the browser refused {path}: {error}"))
    }

    fn try_post(&self, path: &str, body: Value) -> Result<Value, Value> {
        let sent = self
            .agent
            .post(format!("{}{path}", self.session))
            .header("Content-Type", "application/json")
            .send(body.to_string());
        answer(sent)
    }

    fn get(&self, path: &str) -> Result<Value, Value> {
        answer(self.agent.get(format!("{}{path}", self.session)).call())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the browser's console ---");
            if let Ok(entries) = self.try_post("/se/log", json!({"type": "browser"})) {
                eprintln!("{entries:#}");
            }
        }
        let processes = self.processes();
        // Asked first, so that no process of it is in the middle of starting another one.
        let _ = self.agent.delete(&self.session).call();
        for pid in processes.into_iter().chain(self.processes()) {
            signal_pid(pid, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

fn by(selector: &str) -> Value {
    json!({"using": "css selector", "value": selector})
}

/// The value of an answer; an error's is the error.
fn answer(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Value> {
    let mut response = sent.map_err(|error| Value::from(error.to_string()))?;
    let is_ok = response.status().is_success();
    let text = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .map_err(|error| Value::from(error.to_string()))?;
    let mut body: Value =
        serde_json::from_str(&text).map_err(|error| Value::from(error.to_string()))?;
    let value = body["value"].take();
    if is_ok { Ok(value) } else { Err(value) }
}
