//! The `exec` handler: runs a program per event, with the event as one line of JSON on its standard
//! input.
//!
//! The command is a list of words and never goes through a shell. Its exit status is its word: 0 is
//! done, 65 (`EX_DATAERR` of sysexits.h) is dead at once, anything else, a signal and a time-out
//! are worth another attempt. The end of what it wrote, to standard output or standard error, goes
//! to `last_error`.
//!
//! The program starts in `/` with a small environment ([`KEPT`], and the event's id, type and
//! attempt), so that neither the database password nor any other secret of the daemon reaches it. A
//! program named without a slash is searched in `PATH`. It leads a process group, and the group
//! ends with it: background processes that it leaves behind are killed. One that should outlive it
//! must leave the group (`setsid`). When its time is over the group gets SIGTERM, and SIGKILL after
//! a grace of 3 s, or of the timeout when that is shorter.
//!
//! Not done: setting the umask, which needs code between fork and exec (`pre_exec`, unsafe); the
//! daemon's own is inherited, and the unit can set it.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::domain::event::{Event, REASON_BYTES_MAX, one_line};
use crate::domain::text::{ellipsis, last_bytes};
use crate::handlers::keys::{Key, Keys};
use crate::handlers::kind::{Build, Deliver, Kind, Secrets, Settings};
use crate::handlers::process::{End, Process};
use crate::handlers::{HandlerError, Run, in_words};
use crate::system::process::MARK;

/// Exit status that says that no attempt can succeed: `EX_DATAERR` of sysexits.h.
pub const EX_DATAERR: i32 = 65;

/// Variables of the daemon's environment that a program gets, besides all that begin with `LC_`:
/// where things are, who and where it is, and in which language it speaks.
pub const KEPT: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Used when the daemon itself has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The settings: which program, with which arguments.
#[derive(Serialize, Deserialize)]
pub(super) struct ExecSettings {
    /// Program and arguments; never a shell line. At least one element.
    command: Vec<String>,
}

impl Kind for ExecSettings {
    const NAME: &'static str = "exec";
    const SUMMARY: &'static str =
        "a program for each event, which gets the event as JSON on its standard input";
    const FORMS: &'static [&'static str] = &["exec:COMMAND"];
    const KEYS: &'static [Key] = &[Key {
        name: "command",
        help: "[\"PROGRAM\", \"ARGUMENT\"]: the program, by an absolute path or a name in PATH, \
               and its arguments; no shell reads them",
    }];

    /// Reads `exec:/usr/bin/send-mail --fast`. The words are split as a shell would split and
    /// unquote them, and nothing else of a shell happens to them.
    fn from_flag(text: &str) -> Option<Result<ExecSettings, String>> {
        Some(match shlex::split(text.strip_prefix("exec:")?) {
            Some(command) if !command.is_empty() => Ok(ExecSettings { command }),
            Some(_) => {
                Err("`exec:` needs a program, for example `exec:/usr/bin/send-mail`".to_owned())
            }
            None => Err("the command after `exec:` ends inside a quotation".to_owned()),
        })
    }

    fn from_table(keys: Keys<'_>, _: Secrets<'_>) -> Result<ExecSettings, String> {
        keys.texts("command")
            .filter(|command| !command.is_empty())
            .map(|command| ExecSettings { command })
            .ok_or_else(|| r#"needs `command = ["PROGRAM", "ARGUMENT"]`"#.to_owned())
    }
}

impl Settings for ExecSettings {
    fn build(&self, _: Build<'_>) -> Result<Box<dyn Deliver>, String> {
        Ok(Box::new(Exec::new(&self.command)?))
    }

    /// Shows the program without its arguments, since they may hold secrets.
    fn shown(&self) -> String {
        let program = self.command.first().map_or("", String::as_str);
        match self.command.len().saturating_sub(1) {
            0 => format!("exec:{program}"),
            1 => format!("exec:{program} and 1 argument"),
            n_arguments => format!("exec:{program} and {n_arguments} arguments"),
        }
    }

    fn warning(&self) -> Option<String> {
        let program = self.command.first()?;
        (!is_executable(program))
            .then(|| format!("the program `{program}` is not there, or may not be executed"))
    }
}

/// A program with its arguments.
struct Exec {
    program: String,
    arguments: Vec<String>,
}

impl Exec {
    fn new(command: &[String]) -> Result<Exec, String> {
        let Some((program, arguments)) = command.split_first() else {
            return Err("the command is empty; it needs at least a program".to_owned());
        };
        if program.is_empty() {
            return Err("the program's name is empty".to_owned());
        }
        if program.contains('/') && !Path::new(program).is_absolute() {
            return Err(format!(
                "the program must be a name in PATH or an absolute path, because it starts in `/`, not `{program}`"
            ));
        }
        if command.iter().any(|word| word.contains('\0')) {
            return Err("the command must not contain a NUL".to_owned());
        }
        Ok(Exec {
            program: program.clone(),
            arguments: arguments.to_vec(),
        })
    }
}

impl Deliver for Exec {
    /// Runs the program once.
    fn deliver(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError> {
        let process = self
            .path()
            .and_then(|path| Process::start(self.command(&path, event, run.worker)))
            .map_err(|error| {
                HandlerError::retry(format!("could not start `{}`: {error}", self.program))
            })?;
        (run.on_group)(process.group());
        let mut input = one_line(event.to_json());
        // So that `read line` in a shell script works.
        input.push('\n');
        let (end, output) = process
            .finish(input.as_bytes(), run.timeout, || (run.on_group)(0))
            .map_err(|error| {
                HandlerError::retry(format!("could not watch `{}`: {error}", self.program))
            })?;
        match end {
            End::Exited(status) => result_of_exit(status, &output),
            End::TimedOut => Err(HandlerError::retry(reason(
                &format!("timed out after {}", in_words(run.timeout)),
                &output,
            ))),
            End::Unkillable => Err(HandlerError::retry(reason(
                &format!(
                    "timed out after {} and could not be killed",
                    in_words(run.timeout)
                ),
                &output,
            ))),
        }
    }
}

impl Exec {
    /// Finds the program, anew for each run because it may be installed or replaced meanwhile.
    ///
    /// Not left to the standard library: given a name and an environment of its own it forks, which
    /// copies the tables of all our memory (31 ms with 200 MB, against 1.3 ms with a path).
    fn path(&self) -> io::Result<PathBuf> {
        if self.program.contains('/') {
            return Ok(PathBuf::from(&self.program));
        }
        search(&self.program).ok_or_else(|| Errno::NOENT.into())
    }

    fn command(&self, path: &Path, event: &Event, worker: &str) -> Command {
        let mut command = Command::new(path);
        command
            .arg0(&self.program)
            .args(&self.arguments)
            .current_dir("/")
            .env_clear()
            .env("PATH", PATH_DEFAULT)
            .envs(env::vars_os().filter(|(name, _)| {
                name.to_str()
                    .is_some_and(|name| KEPT.contains(&name) || name.starts_with("LC_"))
            }))
            .env("DISPATCHBOX_EVENT_ID", event.id.to_string())
            .env("DISPATCHBOX_EVENT_TYPE", &event.event_type)
            .env("DISPATCHBOX_ATTEMPT", event.attempt.to_string())
            .env(MARK, worker);
        command
    }
}

/// Says whether a program could be started now: it is there, and may be executed.
fn is_executable(program: &str) -> bool {
    if program.contains('/') {
        return can_execute(Path::new(program));
    }
    search(program).is_some()
}

/// Looks for a program in `PATH`.
fn search(program: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
    env::split_paths(&directories)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| can_execute(path))
}

fn can_execute(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

fn result_of_exit(status: ExitStatus, output: &[u8]) -> Result<(), HandlerError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(EX_DATAERR) => Err(HandlerError::Permanent(reason(
            &format!("exit status {EX_DATAERR}"),
            output,
        ))),
        Some(code) => Err(HandlerError::retry(reason(
            &format!("exit status {code}"),
            output,
        ))),
        // "signal: 11 (SIGSEGV) (core dumped)"
        None => Err(HandlerError::retry(reason(
            &format!("ended by {}", status.to_string().replace(": ", " ")),
            output,
        ))),
    }
}

/// `what`, and the end of what the program wrote.
fn reason(what: &str, output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output).replace('\0', "\u{fffd}");
    let output = output.trim();
    if output.is_empty() {
        return what.to_owned();
    }
    let room = REASON_BYTES_MAX.saturating_sub(what.len() + ": …".len());
    let end = last_bytes(output, room);
    format!("{what}: {}{end}", ellipsis(output, end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn each_way_to_end_has_its_meaning() {
        let check = |wait_status, output: &str, expected| {
            let result = result_of_exit(ExitStatus::from_raw(wait_status), output.as_bytes());
            assert_eq!(result, expected);
        };
        let retry = |reason: &str| Err(HandlerError::retry(reason));

        check(0, "all is well", Ok(()));
        check(
            65 << 8,
            "no such customer\n",
            Err(HandlerError::Permanent(
                "exit status 65: no such customer".into(),
            )),
        );
        check(3 << 8, "a\n\0b\n", retry("exit status 3: a\n\u{fffd}b"));
        check(1 << 8, " \n", retry("exit status 1"));
        check(9, "", retry("ended by signal 9 (SIGKILL)"));
        check(
            0x8b,
            "x",
            retry("ended by signal 11 (SIGSEGV) (core dumped): x"),
        );
    }

    #[test]
    fn a_long_output_keeps_its_end_and_fits() {
        let output = format!("{}the cause", "ü".repeat(60_000));

        let reason = reason("exit status 1", output.as_bytes());

        assert!(reason.starts_with("exit status 1: …ü"), "{}", &reason[..40]);
        assert!(reason.ends_with("üthe cause"));
        assert!(reason.len() <= REASON_BYTES_MAX && reason.len() > REASON_BYTES_MAX - 4);
    }

    #[test]
    fn bytes_that_are_no_text_fit_as_well() {
        let reason = reason("exit status 1", &vec![0xff; 64 * 1024]);
        assert!(reason.len() <= REASON_BYTES_MAX);
    }

    #[test]
    fn a_command_that_cannot_be_started_anywhere_is_refused() {
        let check = |words: &[&str], part: &str| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let problem = Exec::new(&words).err().expect("this is refused");
            assert!(problem.contains(part), "{problem}");
        };

        check(&[], "the command is empty");
        check(&["", "x"], "name is empty");
        check(&["./send"], "not `./send`");
        check(&["send", "a\0b"], "NUL");
    }
}
