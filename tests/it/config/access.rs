//! Who may use the HTTP API: the token's file, the open API, further names.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::http::Access;

use super::{ROUTE, check_refused, explain, from_file, resolve};
use crate::support::TestDir;

const TOKEN: &str = "an-unguessable-token";

/// A file of this text that only its owner may read.
fn token_file(directory: &TestDir, text: &str) -> String {
    let path = directory.file("token");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn access_of(args: &[&str]) -> Access {
    resolve(args, &[]).unwrap().access
}

#[test]
fn the_api_is_local_unless_a_token_or_everybody_opens_it() {
    let directory = TestDir::new();
    let path = token_file(&directory, &format!("{TOKEN}\n"));
    let local = |names: &[&str]| Access::Local {
        allowed_hosts: names.iter().map(|name| (*name).to_owned()).collect(),
    };

    assert_eq!(access_of(&[]), local(&[]));
    assert_eq!(
        access_of(&["--http-allowed-hosts", "Outbox.internal, [FD00::1]"]),
        local(&["outbox.internal", "[fd00::1]"])
    );
    assert_eq!(access_of(&["--http-open-api"]), Access::Open);
    let Access::Token(token) = access_of(&["--api-token-file", &path]) else {
        panic!("no token");
    };
    assert_eq!(token.expose(), TOKEN);
    assert_eq!(format!("{token:?}"), "ApiToken(***)");
}

#[test]
fn the_settings_show_the_path_and_never_the_token() {
    let directory = TestDir::new();
    let path = token_file(&directory, TOKEN);

    let (settings, effective) =
        explain(&["--dsn=host=db"], &[("DISPATCHBOX_API_TOKEN_FILE", &path)]).unwrap();

    assert!(
        effective
            .iter()
            .any(|one| one.name == "api-token-file" && one.value == path)
    );
    assert!(!format!("{settings:?}{effective:?}").contains(TOKEN));
    // What workers are told.
    assert!(
        !serde_json::to_string(&settings.config)
            .unwrap()
            .contains(TOKEN)
    );
}

#[test]
fn a_file_that_holds_no_safe_token_is_refused() {
    let directory = TestDir::new();
    let path = token_file(&directory, TOKEN);
    for mode in [0o604, 0o602, 0o646] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        check_refused(
            resolve(&["--api-token-file", &path], &[]),
            2,
            &format!(
                "--api-token-file names `{path}`, which every user of this host can read or write: `chmod o= {path}`"
            ),
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(resolve(&["--api-token-file", &path], &[]).is_ok());

    token_file(&directory, "fifteen-bytes..\n");
    check_refused(
        resolve(&["--api-token-file", &path], &[]),
        2,
        &format!(
            "--api-token-file names `{path}`, which must hold at least 16 bytes, not 15: `openssl rand -hex 32` makes a token"
        ),
    );
    let err = from_file(&format!("api_token_file = \"{path}\"\n{ROUTE}")).unwrap_err();
    assert_eq!(err.exit_code(), 78);

    check_refused(
        resolve(&[], &[("DISPATCHBOX_API_TOKEN_FILE", "/nonexistent")]),
        2,
        "DISPATCHBOX_API_TOKEN_FILE names `/nonexistent`, which cannot be read: No such file or directory (os error 2)",
    );
}

#[test]
fn an_open_api_with_a_token_is_a_contradiction() {
    let directory = TestDir::new();
    let path = token_file(&directory, TOKEN);

    check_refused(
        resolve(&["--http-open-api", "--api-token-file", &path], &[]),
        2,
        "--http-open-api cannot be combined with --api-token-file: an open API asks for no token",
    );
}

#[test]
fn names_that_nobody_looks_at_are_warned_of() {
    let warnings = |args: &[&str]| resolve(args, &[]).unwrap().warnings;
    assert_eq!(
        warnings(&["--http-open-api", "--http-allowed-hosts=a"]),
        [
            "--http-allowed-hosts has no effect: with a token, or an open API, the Host header does not matter"
        ]
    );
    assert!(warnings(&["--http-allowed-hosts=a"]).is_empty());
    check_refused(
        resolve(&["--http-allowed-hosts=a:80"], &[]),
        2,
        "--http-allowed-hosts must be host names without ports, separated by commas, not `a:80`",
    );
}
