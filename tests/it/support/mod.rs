//! What tests stand on. One noun per file; everything a test starts is gone when its value is dropped.

#![allow(
    dead_code,
    unused_imports,
    reason = "a helper may wait for its first test, and a test for another branch's helper"
)]

pub mod directory;
pub mod process;
pub mod wait;

pub use directory::TestDir;
pub use wait::{wait_until, wait_until_within};
