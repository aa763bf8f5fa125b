//! Dispatchbox delivers the events of a PostgreSQL outbox table at least once.

pub mod backoff;
pub mod cli;
pub mod config;
pub mod error;
pub mod event;
pub mod handler;
pub mod logging;
pub mod nearest;
pub mod report;
pub mod store;
