//! The integration tests: one binary, so that one link and one PostgreSQL serve them all.
//!
//! They need PostgreSQL's server programs and nothing else: a private server is started for the run
//! and is gone after it.
//!
//!     cargo test                                      everything
//!     cargo test --test it cluster::                  one file
//!     cargo test --test it a_stopped_cluster -- --exact --nocapture
//!     scripts/test --pg 12 cluster::                  on another version of PostgreSQL, 12 to 18
//!     DISPATCHBOX_TEST_EVENTS=100000 cargo test --test it delivery::two_daemons      more events than the suite has time for
//!     DISPATCHBOX_TEST_KEEP=1 cargo test --test it …  keep the database of a failed test and print the psql line for it
//!
//! Rules: no test sleeps to synchronize (`wait_until`, gates), none is ignored, none needs another
//! one, a port or a row of its own choosing. A new file gets its line here.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking and says so on stderr; `pub` here never leaves the test binary"
)]

/// The shared and private servers, a database per test, the daemon, recording handlers, waiting.
mod support;

/// Several hosts and addresses, standbys among them: each is tried.
mod addresses;
/// The layers, and who may name which crate.
mod architecture;
/// What is moved to the archive, and what stays.
mod archive;
/// The HTTP port against clients that want it gone.
mod attack;
/// The bench: both figures, exact counts, nothing left in a database that it was given.
mod bench;
/// The page in a real browser: what is seen, clicked, legible, and that strangers' text stays text.
mod browser;
/// Things that break while work flows: server, network, locks, workers, rows.
mod chaos;
/// The command `chaos`: every law holds, each broken protection is found, nothing is left.
mod chaos_command;
/// Due, order, limit, filters, bytes, odd rows, and the index that a claim walks.
mod claim;
/// Exact output and status: help, errors, version.
mod cli;
/// The private cluster itself: start, stop, restart, pause, and that nothing is left.
mod cluster;
/// Flag before environment before file before default; limits; the file's errors.
mod config;
/// What `config check` prints: columns that hold, and what the settings mean together.
mod config_check;
/// Connections and the pool: they end in time, say why, and are replaced.
mod connect;
/// Whatever settings a role, a database or a server has, all comes to the same.
mod database_settings;
/// The option `--event-type` of the commands `dead-events …`: exact, or a pattern as in routes.
mod dead_event_types;
/// The commands `dead-events …`: what they print, change, ask and refuse.
mod dead_events_cli;
/// Lists, requeues, discards; what a lease names, what is locked, what is archived already.
mod dead_letter;
/// The whole daemon: every event once, through each kind of handler.
mod delivery;
/// The demo: something of each status, and nothing left however it ends.
mod demo;
/// The command `doctor`: each finding on a real server.
mod doctor;
/// Connection descriptions, beside psql's reading of them.
mod dsn;
/// The command `explain`: each answer it can give.
mod explain;
/// Only the holder of a lease writes, and writes once; the mutants that do otherwise.
mod fence;
/// Handlers against real programs and receivers: each row of their contract, and what can go wrong
/// with either.
mod handler;
/// The endpoints: status and body, bad input, who gets in, bounds in number and time.
mod http_api;
/// The file that tells what a dead worker was handling.
mod in_hand;
/// The support's own laws: a checker that cannot fail proves nothing.
mod kit;
/// Renewing, listing, orphaned leases, TRUNCATE.
mod lease;
/// The library's way: a program with its own handler is the whole daemon.
mod library;
/// HAProxy in front of two daemons that are restarted.
mod load_balancer;
/// The log's form, and what never stands in it.
mod logging;
/// The text's form by a strict reader and by promtool; values after known work; counters that never
/// run backwards.
mod metrics;
/// The command `migrate`.
mod migrate;
/// Tables in a schema that the search_path does not reach: every command names it, and none makes a
/// second outbox.
mod other_schema;
/// Standard output on a full disk, or read by nobody.
mod output;
/// PgBouncer between us and the database, shared with an application.
mod pooler;
/// Random histories against a model.
mod properties;
/// The command `publish`: what goes into the row, and what is refused.
mod publish;
/// Sixteen sessions at once, and the mutants that they find out.
mod race;
/// What /ready says while the database refuses, hangs, or only reads.
mod readiness;
/// The README's options, endpoints, metrics and files are the real ones.
mod readme;
/// What workers report, whatever handlers print.
mod reports;
/// The roles of sql/roles.sql: enough for their work and no more, and what a start says of a role
/// that lacks some.
mod roles;
/// A password that changes while the program runs.
mod rotation;
/// The sample events that ship with the program, and their generator.
mod sample_data;
/// By psql and by migrate, on nothing, on the table of the predecessor in use, and again.
mod schema;
/// The daemon's own look at its port.
mod self_probe;
/// What is written for each outcome.
mod settle;
/// Drain, deadline, second signal, a signal to a worker.
mod signals;
/// Finished events in front of the next due one, in steps.
mod skip;
/// What counts as backlog, what counting costs, and that it delays no other work.
mod statistics;
/// What /api/status tells after known work, and while nothing can be done.
mod status;
/// The command `status`: what a daemon tells, what the database tells where none answers.
mod status_cli;
/// Workers that die, are killed, or never get on; what a supervisor leaves to the next one.
mod supervisor;
/// TLS to the database: every description beside psql, direct TLS, `require_auth`.
mod tls;
/// Tables that are not quite as we would have made them.
mod unfit;
/// Events that cannot be read: passed over, named, looked at again.
mod unreadable;
/// The stages of a worker: what one waits for holds up no other.
mod worker;
