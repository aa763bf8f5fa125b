//! What shows and measures the product, and is no part of it: the throwaway PostgreSQL, the demo,
//! the bench, the chaos, and the real daemon as their child process.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod demo;
pub mod launch;
