//! A few threads for one kind of answers, so that slow answers wait for each other and for no other
//! kind.

use std::io;

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::system::threads;

/// Hands jobs to the threads. They end when this value is dropped and all jobs that were handed
/// over are done.
pub(super) struct ThreadPool<T> {
    jobs: Sender<T>,
}

impl<T: Send + 'static> ThreadPool<T> {
    /// Starts `n_threads` threads, which do `work`; at most `n_waiting` jobs wait for them.
    pub(super) fn start(
        name: &str,
        n_threads: usize,
        n_waiting: usize,
        work: impl Fn(T) + Clone + Send + 'static,
    ) -> io::Result<ThreadPool<T>> {
        let (jobs, taken) = bounded(n_waiting);
        for number in 0..n_threads {
            let (taken, work) = (taken.clone(), work.clone());
            threads::detach(&format!("{name}-{number}"), move || {
                taken.into_iter().for_each(work);
            })?;
        }
        Ok(ThreadPool { jobs })
    }

    /// Hands a job over, or gives it back when all threads are busy and the queue is full.
    pub(super) fn offer(&self, job: T) -> Result<(), T> {
        self.jobs.try_send(job).map_err(TrySendError::into_inner)
    }
}
