//! A TCP port in front of a server that listens on its Unix socket alone.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::database::TestDb;

/// Forwards bytes in both directions. A connection ends when one of its two ends does.
pub struct Front {
    port: u16,
    is_stopped: Arc<AtomicBool>,
}

impl Front {
    /// Starts one.
    pub fn of(db: &TestDb) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = db.directory().join(".s.PGSQL.5432");
        let is_stopped = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&is_stopped);
        // Not joined: it ends by the last connection, in drop.
        thread::spawn(move || accept(&listener, &server, &for_thread));
        Front { port, is_stopped }
    }

    /// The DSN of the database by way of this front.
    pub fn dsn(&self, db: &TestDb) -> String {
        let (port, name) = (self.port, db.name());
        format!("host=127.0.0.1 port={port} user=postgres dbname={name}")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, server: &PathBuf, is_stopped: &AtomicBool) {
    for client in listener.incoming().flatten() {
        if is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(server) = UnixStream::connect(server) else {
            continue;
        };
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (mut from_server, mut to_client) = (server, client);
        thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        thread::spawn(move || {
            let _ = io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
    }
}
