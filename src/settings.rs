//! The settings that a supervisor sends to a worker: one JSON line on its standard input, whose end
//! later means "drain".

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::in_hand::Owner;
use crate::store::dsn::Dsn;

/// Longest settings line that a worker reads; thousands of routes fit.
pub const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Everything that a worker needs to know. It holds the password, so it travels through a pipe and
/// is never printed.
#[derive(Clone, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// The worker's number; it survives restarts.
    pub slot: u16,
    /// Its id, which is never used again, and the other data about it in its in-hand file.
    pub owner: Owner,
    /// The directory of its in-hand file.
    pub directory: PathBuf,
    /// The in-hand file's name without its suffix.
    pub in_hand_name: String,
    /// The settings.
    pub config: Config,
    /// The DSN.
    pub dsn: Dsn,
}
