//! How many cases our parsers are tried on: a few thousand in the suite, and as many as
//! `PROPTEST_CASES` says, for `scripts/fuzz`. Only tests are built with it.

use proptest::test_runner::Config;

/// The settings of a test that has this many cases in the suite.
pub(crate) fn cases(in_suite: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok();
    Config {
        cases: asked.and_then(|text| text.parse().ok()).unwrap_or(in_suite),
        // A case that was found becomes a test of its own.
        failure_persistence: None,
        // The defaults are for hundreds of cases.
        max_global_rejects: u32::MAX,
        max_local_rejects: u32::MAX,
        ..Config::default()
    }
}
