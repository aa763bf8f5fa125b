//! The server that all tests share, and private ones for tests that stop, pause or reconfigure
//! theirs.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use dispatchbox::dev::cluster::{Cluster, Pristine, ServerSettings};

/// Database that every `TestDb` is a copy of.
pub const TEMPLATE: &str = "template_dispatchbox";

/// The server of this test run, with the template loaded. Statics are not dropped: the cluster's
/// own pipe ends it with the process.
pub fn shared() -> &'static Mutex<Cluster> {
    static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Mutex::new(private_with(&ServerSettings::volatile())))
}

/// A server of the test's own, with the template loaded (0.2 s).
pub fn private() -> Cluster {
    private_with(&ServerSettings::volatile())
}

/// A server of the test's own with these parameters, with the template loaded.
pub fn private_with(settings: &ServerSettings) -> Cluster {
    let cluster = Cluster::copy_of(pristine(), settings).unwrap_or_else(|error| panic!("{error}"));
    load_template(&cluster);
    cluster
}

/// The schema as the program ships it, read at run time so that tests need no rebuild for it.
pub fn schema_sql() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/schema.sql");
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The data directory that this test run's servers are copied from: `initdb` takes most of a
/// second, so it runs once.
pub fn pristine() -> &'static Pristine {
    static PRISTINE: OnceLock<Pristine> = OnceLock::new();
    PRISTINE.get_or_init(|| Pristine::create().unwrap_or_else(|error| panic!("{error}")))
}

fn load_template(cluster: &Cluster) {
    let mut server = cluster.client("postgres").unwrap();
    server
        .batch_execute(&format!("CREATE DATABASE {TEMPLATE}"))
        .unwrap();
    let mut template = cluster.client(TEMPLATE).unwrap();
    template.batch_execute(&schema_sql()).unwrap();
}
