//! Threads whose end is an event of the main loop.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

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
    ) -> Result<JoinHandle<()>, String> {
        let shared = Arc::clone(&self.shared);
        let ended = Ended {
            name: name.to_owned(),
            sender: self.ended.clone(),
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _ended = ended;
                stage(&shared);
            })
            .map_err(|error| format!("{name} thread: {error}"))
    }
}

/// Says that its thread has ended, also when that is by a panic.
struct Ended {
    name: String,
    sender: Sender<String>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // The channel has room for every thread of the worker.
        let _ = self.sender.try_send(std::mem::take(&mut self.name));
    }
}
