//! The common parts of the tests. One noun per file; everything that a test starts is gone when its
//! value is dropped.

pub mod browser;
pub mod certificate;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod database;
pub mod directory;
pub mod example;
pub mod exchange;
pub mod front;
pub mod history;
pub mod pgbouncer;
pub mod process;
pub mod proxy;
pub mod psql;
pub mod receiver;
pub mod recorder;
pub mod session;
pub mod verifier;
pub mod versions;
pub mod wait;

pub use browser::Browser;
pub use cli::Cli;
pub use daemon::{Daemon, RunningDaemon, signal_pid};
pub use database::TestDb;
pub use directory::TestDir;
pub use example::example;
pub use exchange::Answer;
pub use front::Front;
pub use history::History;
pub use pgbouncer::PgBouncer;
pub use proxy::Proxy;
pub use psql::psql;
pub use receiver::Receiver;
pub use recorder::Recorder;
pub use wait::{outlast, wait_until, wait_until_within};

/// How many events a test of the whole fleet delivers: as many as the suite has time for, or what
/// `DISPATCHBOX_TEST_EVENTS` says.
pub fn n_events(usual: u32) -> u32 {
    std::env::var("DISPATCHBOX_TEST_EVENTS").map_or(usual, |number| number.parse().unwrap())
}
