//! The handler of the chaos: it records each run before and after it, and does in between what the
//! kind of the event demands.
//!
//! A run is two lines of a file, `id attempt worker begun` and the same with its verdict. Each line
//! is one write to a file that was opened for appending, so the lines of all workers stand whole
//! and in their order. A worker is known by its process id; where a long run meets one a second
//! time, both count as hit by what hit one of them, which excuses too much and never too little.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::dev::chaos::kind::{ATTEMPTS_MAX, DOOMED_ATTEMPTS, Kind, LEASE};
use crate::domain::event::{Event, json_text};
use crate::handlers::{Handler, HandlerError, Handlers};
use crate::system::pause::sleep_uninterruptibly;

/// Name of the handler. `run` does not know it.
pub(crate) const PLAY: &str = "chaos-play";

/// The command that is `run` with [`PLAY`] among the handlers. No help shows it.
pub(crate) const CHAOS_DAEMON: &str = "chaos-daemon";

/// The variable that leads workers to the file of the runs.
pub(super) const HISTORY: &str = "CHAOS_HISTORY";

/// How long a slow event takes.
const SLOW: Duration = LEASE.saturating_add(Duration::from_millis(1500));

/// Longest run of a plain event, in milliseconds.
const PLAIN_MS: u64 = 25;

/// One plain event of so many takes longer, up to so many milliseconds, so that each worker has
/// something in hand at any time.
const LONGER: (u64, u64) = (4, 800);

/// The delays between attempts. They are longer than the time from the sweep of a frozen worker's
/// lease to its thaw, so that its late outcome mostly comes before the next attempt: that is when
/// it could do harm.
const BACKOFF: &str = "backoff_seconds = 4, multiplier = 1";

/// The attempt at which a retried event succeeds.
const RETRIED_UNTIL: u32 = 3;

/// The attempt at which a panicking event succeeds.
const PANICS_UNTIL: u32 = 2;

/// The program of an exec route, with the file of the runs as its argument. A program whose worker
/// died at its start has another parent by now: it records nothing, since it would be taken for a
/// run of the supervisor.
const PROGRAM: &str = r#"read -r parent </proc/$PPID/cmdline
case $parent in *worker) ;; *) exit 1 ;; esac
echo "$DISPATCHBOX_EVENT_ID $DISPATCHBOX_ATTEMPT $PPID begun" >>"$1"
sleep 0.05
echo "$DISPATCHBOX_EVENT_ID $DISPATCHBOX_ATTEMPT $PPID done" >>"$1""#;

/// Adds the handler, for the daemons of the chaos and for workers, which are sent only to handlers
/// that their supervisor knows. A handler that the program has registered under the name keeps it.
#[must_use]
pub fn with_play(handlers: Handlers) -> Handlers {
    let history = env::var_os(HISTORY);
    handlers.register_own(PLAY, Play { history })
}

/// The configuration file of the daemons: the routes of the kinds.
pub(super) fn configuration(history: &Path) -> String {
    let program = format!(
        r#""exec", command = ["/bin/sh", "-c", {}, "chaos", {}]"#,
        json_text(PROGRAM),
        json_text(&history.display().to_string())
    );
    let play = json_text(PLAY);
    let route = |event_type: &str, handler: &str, attempts: u32| {
        format!(
            "{{ event_type = {}, handler = {handler}, retry = {{ max_attempts = {attempts}, {BACKOFF} }} }},\n",
            json_text(event_type)
        )
    };
    // The first match wins, so the pattern stands last.
    let routes = [
        route(Kind::Poison.event_type(), &play, DOOMED_ATTEMPTS),
        route(Kind::Hopeless.event_type(), &play, DOOMED_ATTEMPTS),
        route(Kind::Program.event_type(), &program, ATTEMPTS_MAX),
        route("chaos.*", &play, ATTEMPTS_MAX),
    ];
    format!("route = [\n{}]\n", routes.concat())
}

struct Play {
    history: Option<OsString>,
}

impl Handler for Play {
    fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let record = |what: &str| {
            self.record(event, what)
                .map_err(|error| HandlerError::retry(format!("could not record the run: {error}")))
        };
        record("begun")?;
        let Some(kind) = Kind::of(&event.event_type) else {
            return Err(HandlerError::Permanent(
                "no event of the chaos is like this".to_owned(),
            ));
        };
        match kind {
            Kind::Plain | Kind::Program => sleep_uninterruptibly(plain(event.id)),
            Kind::Slow => sleep_uninterruptibly(SLOW),
            Kind::Retried | Kind::Hopeless
                if kind == Kind::Hopeless || event.attempt < RETRIED_UNTIL =>
            {
                record("failed")?;
                return Err(HandlerError::retry("fails as planned"));
            }
            Kind::Panics if event.attempt < PANICS_UNTIL => {
                record("failed")?;
                panic!("event {} panics as planned", event.id);
            }
            Kind::Refused => {
                record("refused")?;
                return Err(HandlerError::Permanent("refused as planned".to_owned()));
            }
            Kind::Poison => die(),
            Kind::Retried | Kind::Hopeless | Kind::Panics => {}
        }
        record("done")
    }
}

impl Play {
    fn record(&self, event: &Event, what: &str) -> io::Result<()> {
        let path = self
            .history
            .as_ref()
            .ok_or_else(|| io::Error::other(format!("{HISTORY} is not set")))?;
        let mut file: File = OpenOptions::new().append(true).open(path)?;
        let worker = std::process::id();
        let line = format!("{} {} {worker} {what}\n", event.id, event.attempt);
        file.write_all(line.as_bytes())
    }
}

/// How long a plain event takes.
fn plain(id: i64) -> Duration {
    let id = id.unsigned_abs();
    let most = if id.is_multiple_of(LONGER.0) {
        LONGER.1
    } else {
        PLAIN_MS
    };
    Duration::from_millis(id % most)
}

/// Ends this process as the kernel does when memory is short: nothing is cleaned up. An abort would
/// do as well, and leave a core file.
fn die() {
    let _ = kill_process(getpid(), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_has_the_name_keeps_it() {
        let refuses = |_: &Event| Err(HandlerError::retry("no"));
        for handlers in [
            Handlers::default(),
            Handlers::default().register(PLAY, refuses),
        ] {
            let names: Vec<String> = with_play(handlers).names().map(str::to_owned).collect();
            assert_eq!(names, [PLAY]);
        }
    }
}
