//! PgBouncer of the distribution between clients and a test's database, as an application shares
//! it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::database::TestDb;
use super::directory::TestDir;
use super::wait::wait_until;

/// A running PgBouncer, on a TCP port of its own.
pub struct PgBouncer {
    process: Child,
    port: u16,
    size: u16,
    /// Its files go with it.
    _directory: TestDir,
}

impl PgBouncer {
    /// Starts one that lends `size` connections to the server of this database: for a `transaction`
    /// or for a `session`. Further lines of its configuration come last.
    pub fn start(db: &TestDb, lent_for: &str, size: u16, more: &str) -> PgBouncer {
        let directory = TestDir::new();
        // No other process takes the port in the moment until it is bound: ports are given out in
        // turn.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let file = directory.file("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={host} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {lent_for}\ndefault_pool_size = {size}\n{more}\n",
            name = db.name(),
            host = db.directory().display(),
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg("-q").arg(&file);
        if geteuid().is_root() {
            // It refuses to run as root; the socket's owner may use it.
            let owner = fs::metadata(db.directory()).unwrap();
            let uid = std::os::unix::fs::MetadataExt::uid(&owner);
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            chown(directory.path(), Some(uid), None).unwrap();
            command.uid(uid);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let process = command
            // The system's own directories are often not on the PATH of an ordinary user.
            .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.file("log")).unwrap())
            .spawn()
            .expect(
                "PgBouncer is missing: `scripts/install-test-tools`, or `apt-get install pgbouncer`",
            );
        let bouncer = PgBouncer {
            process,
            port,
            size,
            _directory: directory,
        };
        wait_until("PgBouncer listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        bouncer
    }

    /// The DSN of the database by way of the pooler.
    pub fn dsn(&self, db: &TestDb) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname={}",
            self.port,
            db.name()
        )
    }

    /// How many connections it lends.
    pub fn size(&self) -> u16 {
        self.size
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Ok(Some(pid)) = i32::try_from(self.process.id()).map(Pid::from_raw) {
            // At once; others may be ignored, as in a background job of a shell.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}
