//! The `dispatchbox` program.

fn main() {}
