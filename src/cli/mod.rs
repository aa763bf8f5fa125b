//! The command line, in four floors: [`args`] parses what was typed, `settings` makes validated
//! settings of it, `terminal` is how a command speaks to a person, and [`commands`] has a file for
//! each subcommand.
//!
//! Nothing here delivers events.

pub mod args;
pub mod commands;
pub mod settings;
pub mod terminal;
