//! The HTTP port against clients that want it gone: each attack is bounded in time, /health is
//! asked all the while, and afterwards the daemon is what it was. The figures are printed: `cargo
//! test --test it attack:: -- --nocapture`.

mod client;
mod ending;
mod flood;
mod shortage;
mod siege;
mod slow;
mod smuggling;
