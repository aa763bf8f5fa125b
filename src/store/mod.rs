//! The database: the only place of the daemon that opens connections or names `postgres` (the
//! throwaway server of `dev` has a client of its own).
//!
//! A [`Session`] is one connection whose calls are bounded and whose failures are [`StoreError`]s;
//! a [`Pool`] lends a few of them. What can be asked of the database stands as typed calls on
//! `Session`, a file each: [`claim`], [`settle`], [`lease`], [`sweep`], [`dead`], [`publish`],
//! [`inspect`], [`schema`], [`readiness`], [`stats`] and others. The longer statements stand
//! under `sql/`, where psql can run and explain them.
//!
//! Every statement is a transaction of its own, or, behind a pooler and in a rehearsal, a
//! transaction around it that ends with the call: nothing is left open between two calls, so a lost
//! connection never leaves half of something behind.

pub mod addresses;
pub mod bulk_change;
pub mod claim;
pub mod connect;
pub mod cursor;
pub mod dead;
pub mod dead_cursor;
pub mod dead_event;
pub mod doctor;
pub mod dsn;
pub mod error;
pub mod inspect;
pub mod lease;
mod line;
mod login;
mod new_socket;
mod options;
pub mod out_of_reach;
mod ping;
pub mod pool;
pub mod publish;
pub mod readiness;
mod repertoire;
pub mod schema;
pub mod session;
pub mod settle;
pub mod skip;
pub mod stats;
pub mod sweep;
mod tap;
mod text;
mod time;
mod tls;
pub mod unreadable;
mod watch;

pub use addresses::{Resolver, system_resolver};
pub use bulk_change::BulkChange;
pub use claim::{ClaimQuery, ClaimedEvents, Looked, Selection};
pub use connect::{connect, connect_by};
pub use cursor::{Position, Share};
pub use dead::{Changed, DEAD_BATCH, DeadChange, DeadFilter, LeftAlone};
pub use dead_cursor::DeadCursor;
pub use dead_event::DeadEvent;
pub(crate) use error::io_cause;
pub use error::{StoreError, StoreErrorKind};
pub use inspect::{Archived, EventLease, Inspection, LeaseHolder};
pub use lease::Lease;
pub use out_of_reach::OutOfReach;
pub use pool::{Pool, PooledSession};
pub use publish::NewEvent;
pub use readiness::MissingPrerequisite;
pub use session::{Limits, Session, Timeouts};
pub use settle::{EventState, SettleBatch, SettleResult, Settlement, Written};
pub use stats::{Backlog, DeadByType, NotDue};
pub use sweep::EventBrief;
pub use tls::Certificates;
pub use unreadable::{SecondLook, Unreadable, look_waits, looks_in_vain};
