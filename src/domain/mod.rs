//! The words of the program, without I/O: events, settings, the retry policy, the protocol between
//! supervisor and worker, and what a wrong input is told.

pub mod config;
pub mod event;
pub mod failure;
pub mod figure;
pub mod nearest;
pub mod protocol;
pub mod retry;
pub mod text;
pub mod usage;
