//! psql, for scripts that are written for it and for comparisons with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use dispatchbox::store::dsn::Env;

/// psql itself: the wrapper that distributions put before it has ideas of its own.
pub fn psql() -> Command {
    let mut command = Command::new(&FOUND.program);
    command
        .env_clear()
        .envs(FOUND.library.iter().map(|path| ("LD_LIBRARY_PATH", path)))
        .stdin(Stdio::null())
        .args(["-X", "-A", "-t"]);
    command
}

/// Has psql ask the database that `text` describes, with these variables: its answer, or its error.
pub fn ask(sql: &str, text: &str, env: &Env) -> Result<String, String> {
    let output = psql().envs(env).args(["-c", sql, text]).output().unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(said(output.stdout));
    }
    Err(said(output.stderr))
}

/// The major version of the client library that psql uses.
pub fn libpq_version() -> u32 {
    FOUND.version
}

static FOUND: LazyLock<Found> = LazyLock::new(find);

struct Found {
    program: PathBuf,
    /// The directory of the client library that it is to use, where that is not its own.
    library: Option<PathBuf>,
    version: u32,
}

/// Finds psql, and the client library beside the server programs of `PG_BIN` where that is newer
/// than psql: all that psql does to connect is in there.
fn find() -> Found {
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

    let own = major_version(&program);
    let beside = named.and_then(|bin| {
        let library = bin.join("../lib");
        // libpq.so.5 leads to libpq.so.5.18, whose last number is PostgreSQL's.
        let file = fs::canonicalize(library.join("libpq.so.5")).ok()?;
        let version: u32 = file.extension()?.to_str()?.parse().ok()?;
        (version > own).then_some((library, version))
    });
    let (library, version) = beside.unzip();
    Found {
        program,
        library,
        version: version.unwrap_or(own),
    }
}

/// The number that `psql (PostgreSQL) 15.18 (Debian …)` begins with.
fn major_version(program: &Path) -> u32 {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(2).unwrap();
    version.split('.').next().unwrap().parse().unwrap()
}
