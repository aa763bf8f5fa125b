//! The examples: programs that are daemons with handlers of their own.

use std::path::PathBuf;
use std::process::Command;

/// Builds an example, which `cargo test --test it` alone does not, and returns its path.
pub fn example(name: &str) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--locked", "--quiet", "--example", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // Cargo tells a test which package it belongs to; a build script that sees those variables
    // change builds everything anew.
    for (name, _) in std::env::vars_os() {
        let is_about_us = ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix));
        if is_about_us {
            build.env_remove(name);
        }
    }
    assert!(build.status().unwrap().success());
    let examples = PathBuf::from(env!("CARGO_BIN_EXE_dispatchbox")).with_file_name("examples");
    examples.join(name)
}
