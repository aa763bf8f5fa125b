//! What the program needs of the operating system and of its own threads: processes, signals, files
//! that are private, the log.

pub mod certificate;
pub mod directory;
pub mod file_watch;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod in_hand;
#[cfg(test)]
mod in_hand_fuzz;
pub mod incident;
pub mod logging;
pub mod pause;
pub mod pem;
pub mod process;
pub mod signal;
pub mod threads;
