//! The libraries of other languages that check what http routes send.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::receiver::Request;

/// Says, and tells, that `scripts/install-test-tools` could not get the libraries.
pub fn are_left_out() -> bool {
    let is_left_out = libraries().join("left_out").exists();
    if is_left_out {
        eprintln!("left out: the registries of the libraries that check requests were away");
    }
    is_left_out
}

fn libraries() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("verifiers")
}

/// Hands a request, and the secret that it was signed with, to a program below `verifiers`: what it
/// has understood, or why it refuses.
pub fn verify(program: &str, request: &Request, secret: &str) -> Result<Value, String> {
    let libraries = libraries();
    assert!(
        libraries.join("complete").exists(),
        "the libraries that check requests are missing: scripts/install-test-tools"
    );
    let language = match Path::new(program).extension() {
        Some(extension) if extension == "py" => libraries.join("python/bin/python3"),
        _ => "node".into(),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/verifiers")
        .join(program);
    let mut child = Command::new(language)
        .arg(script)
        .env("NODE_PATH", libraries.join("node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let headers: serde_json::Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let body = std::str::from_utf8(&request.body).unwrap();
    let input = json!({ "headers": headers, "body": body, "secret": secret }).to_string();
    // One that ends early says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
