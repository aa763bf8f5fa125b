//! The integration tests.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; `pub` here never leaves the test binary"
)]

/// Processes, directories, waiting.
mod support;

/// Handlers against real programs and receivers: each row of their contract, and what can go wrong with either.
mod handler;
