//! Dispatchbox delivers the events of a PostgreSQL outbox table at least once.

pub mod backoff;
pub mod cluster;
pub mod config;
pub mod event;
pub mod handler;
pub mod report;
pub mod store;
