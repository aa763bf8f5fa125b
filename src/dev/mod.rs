//! What shows and measures the product, and is no part of it: the throwaway PostgreSQL, the demo,
//! the bench, and the real daemon as their child process.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod launch;
