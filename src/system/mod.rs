//! What the program needs of the operating system and of its own threads: processes, signals, files
//! that are private, the log.

pub mod certificate;
pub mod directory;
pub mod in_hand;
pub mod incident;
pub mod logging;
pub mod pause;
pub mod process;
pub mod signal;
pub mod threads;
