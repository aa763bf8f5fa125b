//! psql, for scripts that are written for it and for comparisons with it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// psql itself: the wrapper that distributions put before it has ideas of its own.
pub fn psql() -> Command {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|output| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let program = std::env::var_os("PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .chain(told)
        .chain(installed.map(|entry| entry.path().join("bin")))
        .map(|bin| bin.join("psql"))
        .find(|program| program.is_file())
        .expect("psql is needed: apt-get install postgresql-client");
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .args(["-X", "-A", "-t"]);
    command
}
