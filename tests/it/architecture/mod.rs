//! The layers, and who may name which crate: what the crate documentation claims, checked against
//! the source text.
//!
//! A file imports from lower layers and from its own directory; anything else needs a line in
//! `EXCEPTIONS` with its reason. Read from the text and not from the compiler, so it sees only
//! paths that are written out: an import, or a full path in the code.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// The top-level modules of each layer. Layer 0 is the domain, 1 the operating system and threads,
/// 2 the adapters, 3 the runtime, 4 the application.
const LAYERS: [&[&str]; 5] = [
    &["domain"],
    &["system"],
    &["handlers", "status", "store"],
    &["http", "supervisor", "worker"],
    &["app", "cli", "dev", "lib", "main"],
];

/// Imports within a layer: who, from whom, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("app", "cli", "it hands the command line over"),
    ("app", "dev", "bench and chaos bring their handlers along"),
    ("cli", "dev", "a command hands over to what it names"),
];

/// Crates that only some modules may name, so that each can be replaced in one place.
const CRATES: &[(&str, &[&str])] = &[
    ("argh", &["cli"]),
    ("bytes", &["store"]),
    ("env_logger", &["system/logging"]),
    ("hmac", &["handlers/http"]),
    // The API's requests are parsed by it, and receivers' answers.
    ("httparse", &["http", "handlers"]),
    // A connection URL is compared with it.
    ("percent_encoding", &["handlers", "http", "store/dsn/fuzz"]),
    ("postgres", &["store", "dev/cluster"]),
    ("prometheus", &["status/metrics", "http"]),
    ("r2d2", &["store"]),
    ("r2d2_postgres", &["store"]),
    // Receivers and the database are spoken to in TLS by it.
    (
        "rustls",
        &["handlers", "store", "system/certificate", "system/pem"],
    ),
    ("rustls_native_certs", &["handlers", "store"]),
    ("scheduled_thread_pool", &["store"]),
    // Tokens of the API are compared by their hashes, and requests signed.
    ("sha2", &["http", "handlers/http"]),
    ("signal_hook", &["system/signal"]),
    ("tiny_http", &["http"]),
    ("tokio", &["store"]),
    ("tokio_postgres_rustls", &["store"]),
    // The kinds of handlers read their keys through one reader.
    ("toml", &["cli", "handlers/keys"]),
    // Handlers deliver by it; `status` asks a daemon.
    ("ureq", &["handlers", "cli"]),
    ("webpki", &["system/certificate"]),
    ("webpki_roots", &["handlers", "store"]),
    ("x509_cert", &["store"]),
];

/// Paths that no file may use, with the reason.
const FORBIDDEN: &[(&str, &str)] = &[
    (SLEEP, "waits are interruptible: `recv_timeout`, `select!`"),
    (
        "thread::spawn",
        "it panics when there is no thread to have: `threads::start` or `threads::detach`",
    ),
    (
        "process::getsid",
        "it aborts on a session from outside the namespace: `process::Stat`",
    ),
    (
        "process::getpgid",
        "it aborts on a group from outside the namespace: `process::Stat`",
    ),
    (
        THREAD_BUILDER,
        "threads have a name and an end that is an event: `threads::start` or `threads::detach`",
    ),
    ("mpsc::channel", "channels are bounded"),
    ("crossbeam_channel::unbounded", "channels are bounded"),
];

/// Forbidden but in `system/threads.rs`.
const THREAD_BUILDER: &str = "thread::Builder::new";

/// Forbidden but in `system/pause.rs`.
const SLEEP: &str = "thread::sleep";

/// Macros that no file may use: standard output belongs to the reports, and both panic when it is
/// closed.
const FORBIDDEN_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// What layer 0 may not touch: it does no I/O, reads no clock and no environment, starts no thread.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
];

#[test]
fn the_layers_hold() {
    let complaints = check(&read_sources(), EXCEPTIONS);

    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn tests_wait_only_in_their_support() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sleeping = BTreeSet::new();
    for file in rust_files(&tests) {
        let name = file.strip_prefix(&tests).unwrap().display().to_string();
        let source = Source::new("main", &fs::read_to_string(&file).unwrap());
        let sleeps = source
            .paths
            .iter()
            .any(|path| ends_with(path, "thread::sleep"));
        if sleeps && !name.starts_with("it/support/") {
            sleeping.insert(name);
        }
    }
    assert!(
        sleeping.is_empty(),
        "{sleeping:?} sleep; wait_until waits for facts"
    );
}

#[test]
fn an_import_from_a_higher_layer_is_a_violation() {
    check_violation(
        &[
            (
                "store/claim.rs",
                "use crate::{domain::event::Event, worker::fetcher::Fetcher};",
            ),
            ("worker/fetcher.rs", ""),
        ],
        "store/claim.rs (layer 2) names worker/fetcher.rs (layer 3)",
    );
    check_violation(
        &[
            (
                "domain/event.rs",
                "fn f() -> crate::store::StoreError { todo!() }",
            ),
            ("store/mod.rs", ""),
        ],
        "domain/event.rs (layer 0) names store/mod.rs (layer 2)",
    );
    check_violation(
        &[
            ("store/mod.rs", "use super::http::guard as g;"),
            ("http/guard.rs", ""),
        ],
        "store/mod.rs (layer 2) names http/guard.rs (layer 3)",
    );
}

#[test]
fn an_import_within_a_layer_needs_an_exception_that_is_used() {
    let files = [
        ("supervisor/mod.rs", "use crate::worker;"),
        ("worker/mod.rs", ""),
    ];
    check_violation(
        &files,
        "supervisor/mod.rs (layer 3) names worker/mod.rs (layer 3)",
    );

    let allowed = [("supervisor", "worker", "for this test")];
    assert!(check_texts(&files, &allowed).is_empty());
    assert!(
        check_texts(&[("worker/mod.rs", "")], &allowed)[0].contains("nobody needs the exception")
    );
}

#[test]
fn a_cycle_is_a_violation_even_where_each_step_is_allowed() {
    let allowed = [("handlers", "status", "a"), ("status", "handlers", "b")];
    let files = [
        ("handlers/mod.rs", "use crate::status;"),
        ("status.rs", "use crate::handlers;"),
    ];
    assert!(check_texts(&files, &allowed)[0].contains("cycle"));

    check_violation(
        &[
            ("store/a.rs", "use super::b;"),
            ("store/b.rs", "use super::c;"),
            ("store/c.rs", "use crate::store::a;"),
        ],
        "cycle: store/a.rs, store/b.rs, store/c.rs",
    );
}

#[test]
fn a_crate_named_outside_its_module_is_a_violation() {
    check_violation(
        &[("worker/mod.rs", "fn f(c: &mut postgres::Client) {}")],
        "worker/mod.rs names the crate postgres",
    );
    check_violation(
        &[(
            "dev/demo.rs",
            "use {std::fs, signal_hook::iterator::Signals};",
        )],
        "dev/demo.rs names the crate signal_hook",
    );
    check_violation(
        &[("cli/mod.rs", "use ::tiny_http::Server;")],
        "cli/mod.rs names the crate tiny_http",
    );
}

#[test]
fn what_no_file_may_use_is_a_violation() {
    check_violation(
        &[("worker/mod.rs", "fn f() { std::thread::sleep(d) }")],
        "thread::sleep",
    );
    check_violation(
        &[(
            "worker/mod.rs",
            "use std::thread; fn f() { thread::spawn(g); }",
        )],
        "thread::spawn",
    );
    check_violation(
        &[(
            "worker/mod.rs",
            "use crossbeam_channel::{bounded, unbounded};",
        )],
        "crossbeam_channel::unbounded",
    );
    check_violation(&[("cli/mod.rs", "fn f() { println!(\"a\") }")], "println!");
    check_violation(&[("http/mod.rs", "async fn f() {}")], "is async");
    check_violation(&[("http/mod.rs", "fn f() { g().await }")], "is async");
    check_violation(
        &[("domain/event.rs", "use std::time::{Duration, Instant};")],
        "domain/event.rs (layer 0) uses std::time::Instant",
    );
    check_violation(
        &[("domain/retry.rs", "use std::fs;")],
        "domain/retry.rs (layer 0) uses std::fs",
    );
    check_violation(&[("novelty.rs", "")], "novelty.rs is in no layer");
}

#[test]
fn what_only_looks_like_a_violation_is_none() {
    let innocent = r##"
        // use crate::worker; println!("a")
        /* postgres::Client /* nested */ .await */
        const TEXT: &str = "use crate::worker; \" thread::sleep";
        const RAW: &str = r#"use crate::http; " println!("a")"#;
        const CHARS: (char, u8) = ('"', b'\'');
        fn f<'a>(r: &'a str) -> &'a str { r }
        use std::sync::Arc;
        #[cfg(test)]
        mod tests { use super::*; use super::super::domain; }
    "##;
    let complaints = check_texts(
        &[
            ("store/mod.rs", innocent),
            ("domain/event.rs", ""),
            ("lib.rs", ""),
            ("worker/mod.rs", ""),
        ],
        &[],
    );
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Checks that exactly this is complained about.
#[track_caller]
fn check_violation(files: &[(&str, &str)], complaint: &str) {
    let complaints = check_texts(files, &[]);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(complaint), "{complaints:?}");
}

fn check_texts(files: &[(&str, &str)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    check(&files.collect(), exceptions)
}

/// Checks files (name below `src/` → text) against the rules above.
fn check(files: &BTreeMap<String, String>, exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut imports: BTreeSet<(&str, &str)> = BTreeSet::new();
    let modules: BTreeMap<String, &str> = files
        .keys()
        .map(|name| (module_of(name), name.as_str()))
        .collect();
    for (name, text) in files {
        let source = Source::new(&module_of(name), text);
        let Some(layer) = layer_of(top(name)) else {
            complaints.push(format!("{name} is in no layer: name it in LAYERS"));
            continue;
        };
        complaints.extend(misuses(name, layer, &source));
        for path in &source.paths {
            if let Some(target) = file_of(path, &modules)
                && target != name
            {
                imports.insert((name, target));
            }
        }
    }
    let mut unused: BTreeSet<(&str, &str)> = exceptions.iter().map(|e| (e.0, e.1)).collect();
    for &(from, to) in &imports {
        let (Some(from_layer), Some(to_layer)) = (layer_of(top(from)), layer_of(top(to))) else {
            continue;
        };
        let is_exception = unused.remove(&(top(from), top(to)))
            || exceptions
                .iter()
                .any(|e| (e.0, e.1) == (top(from), top(to)));
        if top(from) != top(to) && to_layer >= from_layer && !is_exception {
            complaints.push(format!(
                "{from} (layer {from_layer}) names {to} (layer {to_layer})"
            ));
        }
    }
    complaints.extend(
        unused
            .iter()
            .map(|(from, to)| format!("nobody needs the exception {from} → {to}")),
    );
    complaints.extend(cycles(&imports));
    complaints
}

/// Complains about crates, paths and macros that a file may not use.
fn misuses(name: &str, layer: usize, source: &Source) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    for path in &source.paths {
        for (krate, owners) in CRATES {
            if path.split("::").next() == Some(krate)
                && !owners.iter().any(|owner| name.starts_with(owner))
            {
                complaints.insert(format!(
                    "{name} names the crate {krate}, which belongs to {owners:?}"
                ));
            }
        }
        for (forbidden, reason) in FORBIDDEN {
            let owners = [
                (THREAD_BUILDER, "system/threads.rs"),
                (SLEEP, "system/pause.rs"),
            ];
            let is_owner = owners.contains(&(*forbidden, name));
            if ends_with(path, forbidden) && !is_owner {
                complaints.insert(format!("{name} uses {forbidden}: {reason}"));
            }
        }
        for impure in IMPURE.iter().filter(|_| layer == 0) {
            if path == impure || path.starts_with(&format!("{impure}::")) {
                complaints.insert(format!("{name} (layer 0) uses {impure}"));
            }
        }
    }
    for word in source
        .macros
        .iter()
        .filter(|word| FORBIDDEN_MACROS.contains(&word.as_str()))
    {
        complaints.insert(format!("{name} uses {word}!"));
    }
    if source.is_async {
        complaints.insert(format!(
            "{name} is async: there are threads and channels instead"
        ));
    }
    complaints.into_iter().collect()
}

/// Complains about files that import each other in a circle. A `mod.rs` is one with its directory:
/// its files may use its types.
fn cycles(imports: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &(from, to) in imports {
        let is_inside = top(from) == top(to);
        if is_inside && (from.ends_with("/mod.rs") || to.ends_with("/mod.rs")) {
            continue;
        }
        let (from, to) = if is_inside {
            (from, to)
        } else {
            (top(from), top(to))
        };
        edges.entry(from).or_default().insert(to);
    }
    let reach = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = edges.get(start).into_iter().flatten().copied().collect();
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend(edges.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let circles: BTreeSet<Vec<&str>> = edges
        .keys()
        .filter(|start| reach(start).contains(*start))
        .map(|start| {
            reach(start)
                .into_iter()
                .filter(|other| reach(other).contains(start))
                .collect()
        })
        .collect();
    circles
        .iter()
        .map(|circle| format!("cycle: {}", circle.join(", ")))
        .collect()
}

/// The module path of a file: `store/claim.rs` is `store::claim`, `store/mod.rs` is `store`; `lib`
/// and `main` are the root.
fn module_of(file: &str) -> String {
    let module = file
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .replace('/', "::");
    if module == "lib" || module == "main" {
        String::new()
    } else {
        module
    }
}

/// The file that a path of this crate leads to: the longest part of it that is a module.
fn file_of<'a>(path: &str, modules: &BTreeMap<String, &'a str>) -> Option<&'a str> {
    let mut path = path
        .strip_prefix("crate::")
        .or_else(|| path.strip_prefix("dispatchbox::"))?;
    loop {
        if let Some(file) = modules.get(path) {
            return Some(file);
        }
        path = path.rsplit_once("::")?.0;
    }
}

fn layer_of(top: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&top))
}

/// The top-level module of a file.
fn top(file: &str) -> &str {
    file.split('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".rs")
}

fn ends_with(path: &str, end: &str) -> bool {
    path == end || path.ends_with(&format!("::{end}"))
}

fn read_sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |file: &PathBuf| file.strip_prefix(&src).unwrap().display().to_string();
    rust_files(&src)
        .iter()
        .map(|file| (name(file), fs::read_to_string(file).unwrap()))
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}
