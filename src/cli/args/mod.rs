//! What was typed, and the help about what may be typed.

mod environment;
pub mod front;
mod help;

pub use environment::environment;
