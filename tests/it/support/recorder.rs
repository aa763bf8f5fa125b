//! A program for exec routes that records its runs, and does what the test wants of it then.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::directory::TestDir;
use super::history::History;
use super::wait::wait_until;

/// A handler program of a test's own. Each run appends `id attempt` before anything else; the file
/// is opened for appending, so runs of several workers never tear a line.
pub struct Recorder {
    directory: TestDir,
}

impl Recorder {
    /// A handler that succeeds.
    pub fn new() -> Recorder {
        let directory = TestDir::new();
        let recorder = Recorder { directory };
        recorder.write_program("");
        recorder
    }

    /// A handler that fails the first `n` attempts of every event.
    pub fn failing_first(n: u32) -> Recorder {
        Recorder::new().then(&format!(r#"[ "$DISPATCHBOX_ATTEMPT" -gt {n} ]"#))
    }

    /// A handler that ends with this status.
    pub fn exiting(status: u8) -> Recorder {
        Recorder::new().then(&format!("exit {status}"))
    }

    /// A handler that goes on with this shell text after it has recorded its run.
    pub fn then(self, script: &str) -> Recorder {
        self.write_program(script);
        self
    }

    /// A handler whose runs wait, after they are recorded, until [`Recorder::open_gate`].
    pub fn gated(self) -> Recorder {
        fs::write(self.directory.file("gate"), "").unwrap();
        let wait = format!(
            "while [ -e {} ]; do sleep 0.01; done",
            self.directory.file("gate")
        );
        self.then(&wait)
    }

    /// Lets all runs go on, those that wait and those to come.
    pub fn open_gate(&self) {
        fs::remove_file(self.directory.file("gate")).unwrap();
    }

    /// The handler program's path.
    pub fn program(&self) -> String {
        self.directory.file("record")
    }

    /// The value for `--route` that sends event types of this pattern here.
    pub fn route(&self, pattern: &str) -> String {
        format!("{pattern}=exec:{}", self.program())
    }

    /// Waits until exactly `n` runs have begun.
    #[track_caller]
    pub fn wait_runs(&self, n: usize) {
        wait_until(&format!("{n} runs have begun"), || {
            self.history().len() == n
        });
    }

    /// The runs so far; a run that has begun is in it.
    pub fn history(&self) -> History {
        History::parse(&fs::read_to_string(self.directory.file("history")).unwrap())
    }

    fn write_program(&self, script: &str) {
        let history = self.directory.file("history");
        fs::write(&history, "").unwrap();
        let mut program = "#!/bin/sh\n".to_owned();
        write!(
            program,
            "echo \"$DISPATCHBOX_EVENT_ID $DISPATCHBOX_ATTEMPT\" >>{history}\n{script}\n"
        )
        .unwrap();
        // The file is written under another name: a program that is still open for writing cannot
        // be run (ETXTBSY).
        let draft = self.directory.file("draft");
        fs::write(&draft, program).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&draft, self.program()).unwrap();
    }
}
