//! Dispatchbox delivers the events of a PostgreSQL outbox table, each at least once.
//!
//! Applications write events into `outbox_event` in the transaction of their business data; this
//! daemon hands every committed one to a handler. `README.md` describes its operation. This page is
//! for developers of Dispatchbox and for authors of handlers. Authors of handlers need
//! [`main_with`], [`handler`] and [`event`] alone, and only [`main_with`], [`handler::Handlers`],
//! [`handler::Handler`], [`handler::HandlerError`] and [`event::Event`] are promised to stay as
//! they are. Other modules are public for the tests. "The predecessor" is the Python program of
//! the same name, whose command line, table and HTTP contract stay valid.
//!
//! # Bird's eye
//!
//! ```text
//! dispatchbox run                     supervisor: one event loop on the main thread
//!  ├─ http        guard → tiny_http: / (the page) /health /ready /metrics /api
//!  ├─ signals     SIGTERM SIGINT SIGHUP → channel (in workers, too)
//!  ├─ observer    readiness: looks whether events could be delivered, for /ready and the log
//!  │              statistics: waits for the database at the start, then counts what waits
//!  ├─ sweeper     ends the leases of a worker that died
//!  ├─ self-probe  asks our own /health over the public port
//!  ├─ line-watch  cuts the lines of database calls that are never answered (in workers, too)
//!  ├─ log         writes the log: only it waits for a reader that has stalled (in workers, too)
//!  └─ worker-00 (process)   stdin: settings, then its end = "drain"   stdout: reports   stderr: log
//!       ├─ fetcher   claims only what has room ──▶ bounded queue
//!       ├─ runner ×max_parallel   handler → outcome ──▶ bounded queue
//!       ├─ settler   writes outcomes in batches
//!       ├─ keeper    renews leases, on its own connection, and looks for expired ones
//!       ├─ sweeper   charges the events of expired leases
//!       └─ reporter  one line a second
//! ```
//!
//! # Where things stand
//!
//! | module | what is in it | layer |
//! |---|---|---|
//! | [`domain`] | events, settings, retry policy, the protocol between supervisor and worker; no I/O | 0 |
//! | [`system`] | threads, processes, signals, in-hand files, incidents, the log, words about certificates | 1 |
//! | [`store`] | the database: sessions, TLS, and every statement as a typed call; `sql/` has the texts | 2 |
//! | [`handlers`] | kinds of handlers, routes, the client for receivers | 2 |
//! | [`status`] | what the daemon knows of itself: state, readiness, metrics, history | 2 |
//! | [`worker`], [`supervisor`], [`http`] | the two kinds of process, and the port | 3 |
//! | [`cli`] | arguments, settings, terminal, commands | 4 |
//! | [`dev`] | demo, bench, chaos, their throwaway PostgreSQL | 4 |
//! | `app` | composition | 4 |
//!
//! # A row's way
//!
//! 1. *Claim.* One call of `outbox_claim_2` reads what is due, a bounded stretch of it where routes
//!    have limits or a call has failed, and names up to 900 events in one new row of
//!    `outbox_lease`. `SKIP LOCKED` guards the moment of claiming, the
//!    lease guards the time of handling. No transaction stays open while a handler runs, so vacuum
//!    is never held back by a slow destination.
//! 2. *Queue.* The channel is the only look-ahead. The fetcher asks for what fits, and for more
//!    only while runners keep up.
//! 3. *Handle.* A runner notes in the in-hand file what it starts, runs the handler, and turns
//!    whatever happens into an outcome.
//! 4. *Settle.* `outbox_settle_1` writes an outcome only while the worker's lease still names the
//!    event; what comes back are the events that the lease still named, each with whether its
//!    outcome stands. A batch whose answer was lost is sent again, and
//!    what the repetition does not find is read back.
//! 5. *Count.* Metrics are counted where the fact becomes true: claimed after the claim, settled
//!    after the commit, by the thread that settles. Reports carry them to the supervisor, which
//!    adds up workers that live and have lived; what waits in the table it counts itself, rarely
//!    and at a bounded cost.
//!
//! # Why a lease per batch
//!
//! Measured with two connections, batches of 500 and a handler that does nothing, on two cores with
//! PostgreSQL 15: updating each row to claim it writes every event twice and doubles its WAL;
//! holding the row lock in an open transaction is faster, but pins vacuum and a connection, and
//! leaves nothing to fence a stale worker with; a commit per event is slower fifty times over. One
//! lease row per batch costs one write per event, makes renewal and release cheap, and tells after
//! a crash exactly what was claimed. Its price is a second small table whose dead rows must not be
//! read again and again: see `outbox_leases_1` in `sql/schema.sql`.
//!
//! # Which part may write what
//!
//! - A worker settles under its own id and token. Once its lease is gone, nothing that it says
//!   changes a row.
//! - *A worker died, its host lives:* the supervisor charges an attempt to exactly the events in
//!   the dead worker's in-hand file, and releases the others of its leases ([`supervisor`]).
//! - *A whole tree was killed:* the next supervisor on the host, or one that runs there already,
//!   finds files that are not locked, and does the same.
//! - *A host is lost:* any worker's sweeper ends the lease once the keeper beside it has seen it
//!   expired twice, and charges all its events, since it cannot be known which were being handled.
//! - *A claim's answer was lost:* no stage holds the lease, so it is not renewed, and its token is
//!   unknown: before its next claim the fetcher ends all leases of its worker that are not in hand.
//!   Where the server may commit the claim after the worker has drained,
//!   or stays away, the worker leaves its in-hand file, so that a supervisor looks for the lease.
//! - *A person requeues or discards a dead event:* only events that are dead and that no lease
//!   names, so a stale worker's late outcome and a person's change never meet ([`store::dead`]).
//!
//! # A signal's way
//!
//! The signal thread sends a number to the supervisor's loop. `/ready` turns 503, every worker's
//! stdin is closed, and the deadline is armed. In a worker the end of stdin stops the fetcher; what
//! is queued is released; runners finish what they have in hand; the settler writes the rest, and
//! releases what the database does not take. When all stages have ended their threads are joined.
//! stdin ends as well
//! when the supervisor is killed, which is why no worker is ever orphaned, and why draining needs
//! no pid that might belong to another process by now.
//!
//! # Health and readiness
//!
//! One state, [`status::state`]: the supervisor's loop writes its phase and what its workers
//! report, the looks write what they found at the database (or that no answer came in time, from
//! the HTTP thread that waited), and the self-probe whether the port answers. A look runs the
//! statements of claiming and settling on no row. `/ready`, `/api/status` and the page read it, and
//! a pure function, [`status::readiness`], derives the reason from it. Troubles come from a small
//! set, [`domain::failure::FailureKind`]; the exact error is logged when it begins, changes and
//! ends.
//!
//! The observer ([`supervisor`]) is all that watches the database for the daemon as a whole, with
//! or without an HTTP port. `http` asks it for a fresh look through [`status::looks`]: there is a
//! look each second while requests ask or a failure is not reported yet, and else every 5 s.
//!
//! The start makes the same checks. A fault that a person has to correct, in the schema or a
//! privilege, ends it with the remedy ([`store::MissingPrerequisite`]). A database that is away,
//! only reads, or is locked is waited for.
//!
//! # Invariants
//!
//! **Architecture invariant:** a module imports from lower layers only; `tests/it/architecture`
//! holds the table of layers, the few exceptions with their reasons, and which module may name
//! which crate.
//!
//! **Architecture invariant:** the supervisor knows a worker as a program with two pipes and an
//! in-hand file; supervisor, worker and http never import one another.
//!
//! **Architecture invariant:** all times that are stored or compared between hosts are the
//! database's. This program measures durations with `Instant`; the local wall clock only dates log
//! lines, checks certificates, and stands in for a receiver's missing `Date`.
//!
//! **Architecture invariant:** every channel is bounded; a wait for events ends with its channel,
//! and only the waits between two tries of a database call, a second at most, are not
//! interruptible.
//!
//! **Architecture invariant:** the DSN reaches a worker through its stdin and stands in no
//! argument, no environment variable and no message.

mod app;
pub mod cli;
pub mod dev;
pub mod domain;
pub mod handlers;
pub mod http;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod system;
pub mod worker;

pub use app::main_with;
pub use domain::event;
pub use handlers as handler;
