//! A route's own certificates: whom it trusts, and what it shows. The receivers are HAProxy's.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use dispatchbox::domain::config::HandlerSpec;
use dispatchbox::handlers::http::DEAD_STATUSES;
use serde_json::{Value, json};

use super::{Only, event, retry_reason};
use crate::support::certificate::{Authority, Wanted, YEARS, authority};
use crate::support::{Cli, TestDir, wait_until};

const PORT: u16 = 8443;

/// An address that no other process and no other test of this module takes.
fn address(test: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 150 + test, high, low)
}

/// A receiver in TLS that answers 204; it ends with this value.
struct Receiver {
    process: Child,
    address: Ipv4Addr,
}

impl Receiver {
    /// Starts a receiver with this certificate and key; where `clients` is there, it takes only
    /// those whose certificate this authority has signed.
    fn start(
        directory: &TestDir,
        address: Ipv4Addr,
        (certificate, key): &(String, String),
        clients: Option<&Authority>,
    ) -> Receiver {
        fs::write(directory.file("server.pem"), format!("{certificate}{key}")).unwrap();
        let mut verify = String::new();
        if let Some(clients) = clients {
            fs::write(directory.file("clients.pem"), clients.pem()).unwrap();
            verify = format!("ca-file {} verify required", directory.file("clients.pem"));
        }
        let text = format!(
            "defaults
  mode http
  timeout client 20s
frontend front
  bind {address}:{PORT} ssl crt {} {verify}
  http-request return status 204
",
            directory.file("server.pem"),
        );
        fs::write(directory.file("haproxy.cfg"), text).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let process = Command::new("haproxy")
            .env("PATH", path)
            .args(["-db", "-f", &directory.file("haproxy.cfg")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy is missing: `scripts/install-test-tools`");
        let receiver = Receiver { process, address };
        wait_until("the receiver listens", || {
            TcpStream::connect((address, PORT)).is_ok()
        });
        receiver
    }

    /// A handler that posts here with these certificate files.
    fn handler(&self, files: Value) -> HandlerSpec {
        HandlerSpec {
            kind: "http".to_owned(),
            settings: json!({
                "url": format!("https://{}:{PORT}/hook", self.address),
                "url_source": "route",
                "dead_statuses": DEAD_STATUSES,
                "way": { "files": files },
            }),
        }
    }

    fn post(&self, files: Value) -> Result<(), String> {
        let result = Only::new(self.handler(files)).run(&event("a"));
        result.map_err(|error| error.to_string())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a certificate for an address is made of.
fn wanted(addresses: &[Ipv4Addr]) -> Wanted<'_> {
    Wanted {
        common: "somebody",
        dns: &[],
        addresses,
        years: YEARS,
    }
}

#[track_caller]
fn contains(result: &Result<(), String>, parts: &[&str]) {
    let reason = result.as_ref().expect_err("it is refused");
    for part in parts {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[test]
fn a_routes_ca_file_is_what_its_receiver_is_checked_against() {
    let dir = TestDir::new();
    let address = address(0);
    let (own, other) = (authority("own"), authority("other"));
    let receiver = Receiver::start(&dir, address, &wanted(&[address]).signed_by(&own), None);
    let ca = dir.file("ca.pem");
    let files = || json!({ "ca": ca });

    fs::write(&ca, own.pem()).unwrap();
    assert_eq!(receiver.post(files()), Ok(()));
    fs::write(&ca, other.pem() + &own.pem()).unwrap();
    assert_eq!(receiver.post(files()), Ok(()));

    fs::write(&ca, other.pem()).unwrap();
    let at_ca = format!("trusted: ca_file `{ca}`");
    contains(
        &receiver.post(files()),
        &["signed by no authority", &at_ca, "into that file"],
    );
    contains(
        &receiver.post(json!({})),
        &["signed by no authority", "in the route's ca_file"],
    );
}

#[test]
fn a_receivers_own_certificate_in_the_ca_file_is_accepted_for_its_names() {
    let dir = TestDir::new();
    let address = address(1);
    let ca = dir.file("ca.pem");
    let identity = wanted(&[address]).self_signed();
    fs::write(&ca, &identity.0).unwrap();
    let receiver = Receiver::start(&dir, address, &identity, None);
    assert_eq!(receiver.post(json!({ "ca": ca })), Ok(()));
    drop(receiver);

    let identity = wanted(&[Ipv4Addr::LOCALHOST]).self_signed();
    fs::write(&ca, &identity.0).unwrap();
    let receiver = Receiver::start(&dir, address, &identity, None);
    let not_for = format!("is for `127.0.0.1`, not for `{address}`");
    contains(&receiver.post(json!({ "ca": ca })), &[&not_for]);
}

/// Goal: an authority that is exchanged needs no restart, nor does a file that is broken for a
/// moment cost the one before.
#[test]
fn a_changed_ca_file_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = TestDir::new();
    let address = address(2);
    let (own, other) = (authority("own"), authority("other"));
    let ca = dir.file("ca.pem");
    fs::write(&ca, other.pem()).unwrap();
    let identity = wanted(&[address]).signed_by(&own);
    let receiver = Receiver::start(&dir, address, &identity, None);
    let only = Only::new(receiver.handler(json!({ "ca": ca })));
    let post = || only.run(&event("a")).map_err(|error| error.to_string());
    contains(&post(), &["signed by no authority"]);

    fs::write(&ca, own.pem()).unwrap();
    wait_until("the new authority is trusted", || post() == Ok(()));

    // The connections so far end with their receiver.
    drop(receiver);
    fs::write(&ca, "").unwrap();
    let _receiver = Receiver::start(&dir, address, &identity, None);
    assert_eq!(post(), Ok(()));
}

#[test]
fn a_certificate_is_shown_to_a_receiver_that_wants_one_and_read_again_when_renewed() {
    let dir = TestDir::new();
    let address = address(4);
    let (own, other) = (authority("own"), authority("other"));
    let ca = dir.file("ca.pem");
    fs::write(&ca, own.pem()).unwrap();
    let identity = wanted(&[address]).signed_by(&own);
    let receiver = Receiver::start(&dir, address, &identity, Some(&own));
    let (certificate, key) = (dir.file("client.pem"), dir.file("client.key"));
    let write = |(certificate_text, key_text): (String, String)| {
        fs::write(&certificate, certificate_text).unwrap();
        fs::write(&key, key_text).unwrap();
    };
    contains(
        &receiver.post(json!({ "ca": ca })),
        &[
            "wants a client certificate",
            "client_cert_file",
            "client_key_file",
        ],
    );

    write(wanted(&[]).signed_by(&other));
    let files = json!({ "ca": ca, "certificate": certificate, "key": key });
    let only = Only::new(receiver.handler(files));
    let reason = retry_reason(only.run(&event("a")));
    let refuses = format!("refuses the client certificate `{certificate}`: it does not trust");
    assert!(reason.contains(&refuses), "{reason}");

    write(wanted(&[]).signed_by(&own));
    wait_until("the renewed certificate is shown", || {
        only.run(&event("a")) == Ok(())
    });

    // Both in one file.
    let (certificate_text, key_text) = wanted(&[]).signed_by(&own);
    let both = dir.file("both.pem");
    fs::write(&both, certificate_text + &key_text).unwrap();
    let files = json!({ "ca": ca, "certificate": both });
    assert_eq!(receiver.post(files), Ok(()));
}

/// What `config check` says of a route with these keys.
fn checked(dir: &TestDir, url: &str, keys: &str) -> (i32, String) {
    let path = dir.file("routes.toml");
    let text =
        format!("[[route]]\nevent_type = \"*\"\nhandler = \"http\"\nurl = \"{url}\"\n{keys}");
    fs::write(&path, text).unwrap();
    let said = Cli::new([
        "config",
        "check",
        "--dsn=host=x user=u dbname=d",
        "--config",
        &path,
    ])
    .run();
    (said.status, said.stdout + &said.stderr)
}

#[test]
fn certificate_files_that_can_never_work_are_refused_at_the_start() {
    let dir = TestDir::new();
    let own = authority("own");
    let (certificate, key) = wanted(&[]).signed_by(&own);
    let (_, key_of_another) = wanted(&[]).signed_by(&own);
    for (name, text) in [
        ("ca.pem", own.pem().as_str()),
        ("empty.pem", ""),
        ("client.pem", &certificate),
        ("client.key", &key),
        ("other.key", &key_of_another),
        (
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH0\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
    ] {
        fs::write(dir.file(name), text).unwrap();
    }
    let keys = |named: &[(&str, &str)]| {
        let line = |(key, name): &(&str, &str)| format!("{key} = \"{}\"\n", dir.file(name));
        named.iter().map(line).collect::<String>()
    };
    let https = "https://crm.example/hook";

    let all = [
        ("ca_file", "ca.pem"),
        ("client_cert_file", "client.pem"),
        ("client_key_file", "client.key"),
    ];
    let (status, said) = checked(&dir, https, &keys(&all));
    assert_eq!(status, 0, "{said}");
    for (key, name) in all {
        assert!(
            said.contains(&format!("{key} {}", dir.file(name))),
            "{said}"
        );
    }

    let (cert, key) = ("client_cert_file", "client_key_file");
    for (url, named, expected) in [
        (
            https,
            vec![("ca_file", "none.pem")],
            "none.pem` cannot be used: No such file",
        ),
        (
            https,
            vec![("ca_file", "empty.pem")],
            "empty.pem` cannot be used: it holds no certificate in PEM",
        ),
        (
            https,
            vec![(key, "client.key")],
            "has `client_key_file` without `client_cert_file`",
        ),
        (
            https,
            vec![(cert, "client.pem")],
            "client.pem` holds no private key in PEM",
        ),
        (
            https,
            vec![(cert, "client.pem"), (key, "locked.key")],
            "the client_key_file `",
        ),
        (
            https,
            vec![(cert, "client.pem"), (key, "locked.key")],
            "locked.key` is encrypted, which this version cannot read",
        ),
        (
            https,
            vec![(cert, "client.pem"), (key, "other.key")],
            "do not fit together: the key is another certificate's",
        ),
        (
            "http://crm.example/hook",
            vec![("ca_file", "ca.pem")],
            "has `ca_file`, which only an https URL has use for",
        ),
        (
            "http://crm.example/hook",
            vec![(cert, "client.pem"), (key, "client.key")],
            "has `client_cert_file`, which only",
        ),
    ] {
        let (status, said) = checked(&dir, url, &keys(&named));
        assert_eq!(status, 78, "{named:?}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
