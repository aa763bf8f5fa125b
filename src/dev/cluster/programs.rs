//! Where the server's programs are, and which user they run as.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::dev::cluster::ClusterError;

/// Finds the directory with the server's programs: `PG_BIN`, the one that `pg_config` names, or the
/// newest that a distribution installed.
pub(super) fn find_programs() -> Result<PathBuf, ClusterError> {
    let is_complete =
        |bin: &PathBuf| bin.join("initdb").is_file() && bin.join("postgres").is_file();
    if let Some(bin) = std::env::var_os("PG_BIN") {
        let bin = PathBuf::from(bin);
        return if is_complete(&bin) {
            Ok(bin)
        } else {
            Err(ClusterError::PgBinWrong(bin))
        };
    }
    let told = Command::new("pg_config")
        .arg("--bindir")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|bin| PathBuf::from(bin.trim()));
    told.into_iter()
        .chain(installed_programs())
        .find(is_complete)
        .ok_or(ClusterError::ProgramsMissing)
}

/// Lists the directories in which Debian and Red Hat install the programs of each major version,
/// newest first.
fn installed_programs() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(major) = name.strip_prefix(prefix).and_then(|n| n.parse().ok()) {
                found.push((major, entry.path().join("bin")));
            }
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// Chooses the user and group to run the server as; `None` for those of this process.
pub(super) fn server_user() -> Result<Option<(u32, u32)>, ClusterError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| ids_in(&passwd, name))
        .map(Some)
        .ok_or(ClusterError::NoUserToRunAs)
}

fn ids_in(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
}
