//! The page behind a reverse proxy that puts its own Host in place of the public one, as nginx does
//! unless it is told otherwise.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::{daemon_with_token, enter_token, insert_dead};
use crate::support::{Browser, TestDb, TestDir, wait_until};

/// A proxy in front of a port of this host; it ends with the tests.
fn proxy(port: u16) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that goes away early is its own affair.
            thread::spawn(move || pass_on(client, port));
        }
    });
    address
}

/// Passes one request on, with another Host and a word about the client, and the answer back.
fn pass_on(mut client: TcpStream, port: u16) -> io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let mut n_bytes = 0;
    let mut upstream = TcpStream::connect(("127.0.0.1", port))?;
    for line in head.trim_end().split("\r\n") {
        let lower = line.to_ascii_lowercase();
        if let Some(length) = lower.strip_prefix("content-length:") {
            n_bytes = length.trim().parse().unwrap();
        }
        if !lower.starts_with("host:") {
            write!(upstream, "{line}\r\n")?;
        }
    }
    write!(
        upstream,
        "Host: upstream\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    )?;
    let mut body = vec![0; n_bytes];
    client.read_exact(&mut body)?;
    upstream.write_all(&body)?;
    io::copy(&mut upstream, &mut client).map(drop)
}

#[test]
fn with_the_token_the_buttons_work_behind_a_proxy_that_replaces_the_host() {
    let db = TestDb::new();
    insert_dead(&db, 1, "order.created", "no route to host", 1);
    let directory = TestDir::new();
    let daemon = daemon_with_token(&db, &directory);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", proxy(daemon.http_port())));
    browser.wait_text("#token", "--api-token-file");
    enter_token(&browser);

    browser.click("[aria-label='Retry event 1']");

    wait_until("the event is delivered", || db.count("done") == 1);
}
