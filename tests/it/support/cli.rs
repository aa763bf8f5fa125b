//! The real program as a one-shot command: exact output, exact status.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// One call of the program, in an environment that holds nothing but what the test puts there.
#[derive(Default)]
pub struct Cli {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdout: Option<String>,
    stderr: Option<String>,
    snapshot: Option<PathBuf>,
    stdin: Option<String>,
    status: i32,
}

/// What a call wrote, and how it ended.
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

impl Cli {
    /// A call with these arguments; it is expected to succeed and to write nothing, unless the test
    /// says otherwise.
    pub fn new<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Cli {
        Cli {
            args: args.into_iter().map(Into::into).collect(),
            ..Cli::default()
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Cli {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Cli {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the text of standard input; it is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Cli {
        self.stdin = Some(text.into());
        self
    }

    /// Expects exactly this on standard output.
    #[must_use]
    pub fn stdout(mut self, text: impl Into<String>) -> Cli {
        self.stdout = Some(text.into());
        self
    }

    /// Expects exactly this on standard error.
    #[must_use]
    pub fn stderr(mut self, text: impl Into<String>) -> Cli {
        self.stderr = Some(text.into());
        self
    }

    /// Expects on standard output what the file of this name in `snapshots` holds;
    /// `DISPATCHBOX_BLESS=1` rewrites it.
    #[must_use]
    pub fn snapshot(mut self, name: &str) -> Cli {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
        self.snapshot = Some(directory.join(name).with_extension("txt"));
        self
    }

    /// Expects this exit code.
    #[must_use]
    pub fn status(mut self, status: i32) -> Cli {
        self.status = status;
        self
    }

    /// Runs the program and compares.
    #[track_caller]
    pub fn check(self) {
        let said = run(&self.args, &self.env, self.stdin.as_deref());
        let expected = match &self.snapshot {
            Some(path) if std::env::var_os("DISPATCHBOX_BLESS").is_some() => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &said.stdout).unwrap();
                said.stdout.clone()
            }
            Some(path) => fs::read_to_string(path).unwrap_or_else(|error| {
                panic!("{}: {error}; run with DISPATCHBOX_BLESS=1", path.display())
            }),
            None => self.stdout.unwrap_or_default(),
        };
        let args = &self.args;
        assert_eq!(
            said.stderr,
            self.stderr.unwrap_or_default(),
            "stderr of {args:?}"
        );
        assert_eq!(said.stdout, expected, "stdout of {args:?}");
        assert_eq!(said.status, self.status, "status of {args:?}");
    }

    /// Runs the program and returns its output, for tests that compare only a part of it.
    pub fn run(self) -> Said {
        run(&self.args, &self.env, self.stdin.as_deref())
    }

    /// Runs the program on a terminal of its own, so many columns wide: all that the terminal was
    /// sent, and the exit code.
    pub fn on_terminal(self, columns: u16) -> (String, i32) {
        self.on_terminal_typing(columns, "", "")
    }

    /// Runs the program on a terminal as `on_terminal` does, where a person types `typed` once
    /// `asked` has been shown.
    pub fn on_terminal_typing(self, columns: u16, asked: &str, typed: &str) -> (String, i32) {
        let program = OsString::from(env!("CARGO_BIN_EXE_dispatchbox"));
        let words = std::iter::once(&program).chain(&self.args);
        let words = words.map(|word| word.to_str().unwrap());
        let line = shlex::try_join(words).unwrap();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!("stty cols {columns} -echo; exec {line}"))
            .arg("/dev/null")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TERM", "xterm")
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept open: its end would be the terminal's end, before the program has said everything.
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut shown = Vec::new();
        let mut is_typed = typed.is_empty();
        let mut some = [0; 4096];
        loop {
            let n_bytes = stdout.read(&mut some).unwrap();
            if n_bytes == 0 {
                break;
            }
            shown.extend_from_slice(&some[..n_bytes]);
            if !is_typed && String::from_utf8_lossy(&shown).contains(asked) {
                stdin.write_all(typed.as_bytes()).unwrap();
                is_typed = true;
            }
        }
        let status = child.wait().unwrap();
        (
            String::from_utf8(shown).unwrap(),
            status.code().unwrap_or(-1),
        )
    }
}

fn run(args: &[OsString], env: &[(OsString, OsString)], stdin: Option<&str>) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(args)
        .env_clear()
        .envs(env.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Small enough for the pipe; a program that does not read it may be gone already.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.unwrap_or_default().as_bytes());
    let Output {
        stdout,
        stderr,
        status,
    } = child.wait_with_output().unwrap();
    Said {
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        status: status.code().unwrap_or(-1),
    }
}
