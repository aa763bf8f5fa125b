//! Threads whose end is an event of the main loop.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::system::threads::{self, Thread};
use crate::worker::shared::Shared;

/// Starts the named threads of a worker and makes each end an event of the main loop.
pub(super) struct Spawner {
    shared: Arc<Shared>,
    ended: Sender<String>,
}

impl Spawner {
    /// For the threads of one worker; the channel must have room for all their ends.
    pub(super) fn new(shared: Arc<Shared>, ended: Sender<String>) -> Spawner {
        Spawner { shared, ended }
    }

    /// Starts a thread.
    pub(super) fn spawn(
        &self,
        name: &str,
        stage: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<Thread, String> {
        let shared = Arc::clone(&self.shared);
        threads::start_telling(name, &self.ended, move || stage(&shared))
            .map_err(|error| format!("{name} thread: {error}"))
    }
}
