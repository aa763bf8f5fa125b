//! A URL that is a secret: read from its file again, and shown nowhere.

use std::fs;

use serde_json::json;

use super::server::{Server, post_by};
use super::{Only, event, retry_reason};
use crate::support::{TestDir, wait_until};

fn url_of(server: &Server) -> String {
    format!(
        "http://127.0.0.1:{}/services/s3cr3t?key=s3cr3t",
        server.port()
    )
}

#[test]
fn a_changed_url_file_is_followed_and_a_broken_one_is_not() {
    let directory = TestDir::new();
    let path = directory.file("url");
    let [first, second] = [(); 2].map(|()| Server::answering("500 Oops", ""));
    fs::write(&path, url_of(&first)).unwrap();
    let only = Only::new(post_by(&url_of(&first), json!({ "file": path })));
    let post = || {
        let reason = retry_reason(only.run(&event("a")));
        assert!(!reason.contains("s3cr3t"), "{reason}");
    };
    post();
    assert_eq!(
        first.requests()[0].line,
        "POST /services/s3cr3t?key=s3cr3t HTTP/1.1"
    );

    // As a program does that truncates the file before it writes; with something that is no URL;
    // and with the file gone.
    for broken in ["", "s3cr3t\n"] {
        fs::write(&path, broken).unwrap();
        for _ in 0..3 {
            post();
        }
    }
    fs::remove_file(&path).unwrap();
    post();
    assert_eq!(second.n_connections(), 0);

    fs::write(&path, url_of(&second) + "\n").unwrap();
    wait_until("the new url is used", || {
        post();
        !second.requests().is_empty()
    });
}
