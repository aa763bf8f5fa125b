//! psql, for scripts that are written for it and for comparisons with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// psql itself: the wrapper that distributions put before it has ideas of its own.
pub fn psql() -> Command {
    static PSQL: LazyLock<(PathBuf, Option<PathBuf>)> = LazyLock::new(find);
    let (program, library) = &*PSQL;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(library.iter().map(|library| ("LD_LIBRARY_PATH", library)))
        .stdin(Stdio::null())
        .args(["-X", "-A", "-t"]);
    command
}

/// Finds psql, and the directory of the client library that it is to use: the one beside the server
/// programs of `PG_BIN` where that is newer than psql. All that psql does to connect is in there.
fn find() -> (PathBuf, Option<PathBuf>) {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|output| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let named = std::env::var_os("PG_BIN").map(PathBuf::from);
    let program = named
        .iter()
        .cloned()
        .chain(told)
        .chain(installed.map(|entry| entry.path().join("bin")))
        .map(|bin| bin.join("psql"))
        .find(|program| program.is_file())
        .expect("psql is needed: apt-get install postgresql-client");

    let library = named.map(|bin| bin.join("../lib")).filter(|library| {
        // libpq.so.5 leads to libpq.so.5.18, whose last number is PostgreSQL's.
        let newest = fs::canonicalize(library.join("libpq.so.5")).ok();
        let newest = newest.and_then(|file| file.extension()?.to_str()?.parse::<u32>().ok());
        newest > major_version(&program)
    });
    (program, library)
}

/// The number that `psql (PostgreSQL) 15.18 (Debian …)` begins with.
fn major_version(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(2)?;
    version.split('.').next()?.parse().ok()
}
