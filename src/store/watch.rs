//! The thread that cuts the lines of calls that are overdue. It runs while there is a line.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use log::warn;

use crate::store::line::Line;
use crate::system::pause::sleep_uninterruptibly;
use crate::system::threads;

/// The interval at which calls are looked at. A call ends at most this much late.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The lines that are watched.
struct Watched {
    lines: Vec<Weak<Line>>,
    is_running: bool,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched {
    lines: Vec::new(),
    is_running: false,
});

/// Watches this line for as long as it lives.
pub(super) fn watch(line: &Arc<Line>) {
    let mut watched = watched();
    watched.lines.push(Arc::downgrade(line));
    if !watched.is_running {
        match threads::detach("line-watch", look_again_and_again) {
            // The thread waits for this lock.
            Ok(()) => watched.is_running = true,
            Err(error) => warn!("calls of the database are not watched: {error}"),
        }
    }
}

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_again_and_again() {
    loop {
        let mut watched = watched();
        watched.lines.retain(|line| line.strong_count() > 0);
        if watched.lines.is_empty() {
            watched.is_running = false;
            return;
        }
        let lines: Vec<Arc<Line>> = watched.lines.iter().filter_map(Weak::upgrade).collect();
        drop(watched);
        for line in lines {
            line.cut_if_overdue();
        }
        sleep_uninterruptibly(LOOK_EVERY);
    }
}
