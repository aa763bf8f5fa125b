//! The protocol between a supervisor and its worker, one line of JSON each.
//!
//! The supervisor writes [`WorkerSettings`] to the worker's standard input, whose end later means
//! "drain". The worker writes a [`Report`] to its standard output: once a second, when its phase
//! changes, and at the end.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::config::Config;
use crate::domain::failure::FailureKind;

/// Longest settings line that a worker reads; thousands of routes fit.
pub const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Everything that a worker needs to know. It holds the password, so it travels through a pipe and
/// is never printed. `Dsn` says where the database is, in the store's own type.
#[derive(Clone, Serialize, Deserialize)]
pub struct WorkerSettings<Dsn> {
    /// The worker's number; it survives restarts.
    pub slot: u16,
    /// Its id, which is never used again, and the other data about it in its in-hand file.
    pub owner: Owner,
    /// The directory of its in-hand file.
    pub directory: PathBuf,
    /// The in-hand file's name without its suffix.
    pub in_hand_name: String,
    /// The settings.
    pub config: Config,
    /// The DSN.
    pub dsn: Dsn,
}

/// The worker as its leases, its connections and its in-hand file name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The worker's id, as its leases name it.
    pub worker: String,
    /// `application_name` of the worker's connections, to see whether one of its back ends still
    /// runs.
    pub application_name: String,
    /// Which database the leases are in; see `store::dsn::Dsn::identity`.
    pub database: String,
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The phase of the worker.
    pub phase: Phase,
    /// Events claimed and not settled.
    pub in_flight: u64,
    /// The results of its recent database calls.
    pub access: DatabaseAccess,
    /// Milliseconds that the oldest database call under way has taken; 0 while there is none.
    pub longest_call_ms: u64,
    /// Everything it has counted since it started.
    pub metrics: Snapshot,
}

/// The results of a worker's recent database calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseAccess {
    /// Not known yet: the worker has claimed nothing and met no trouble.
    Untried,
    /// The calls succeed.
    Granted,
    /// The calls have failed, or not returned, for this long, and none has succeeded since.
    Failing {
        /// The gravest of what they met.
        #[serde(rename = "trouble")]
        failure_kind: FailureKind,
        /// Duration in milliseconds.
        for_ms: u64,
    },
}

impl DatabaseAccess {
    /// Says whether there is a connection, whatever comes of the statements; `None` while that is
    /// not known.
    pub fn is_connected(self) -> Option<bool> {
        match self {
            DatabaseAccess::Untried => None,
            DatabaseAccess::Granted => Some(true),
            DatabaseAccess::Failing { failure_kind, .. } => {
                Some(failure_kind != FailureKind::Unavailable)
            }
        }
    }
}

/// A worker's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Claims and handles events.
    Running,
    /// Claims no more; finishes what runs.
    Draining,
    /// Has settled everything it could; its last report.
    Drained,
}

/// The values of a worker's metrics; counters and histograms of several workers add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// One entry a time series.
    pub series: Vec<Series>,
}

impl Snapshot {
    /// Adds up the counters and gauges of this name that have all these labels, in whole numbers.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.series
            .iter()
            .filter(|series| series.name == name && has_labels(&series.labels, labels))
            .map(|series| series.value.whole())
            .sum()
    }
}

/// Says whether a time series has all these labels.
pub fn has_labels(has: &[(String, String)], wanted: &[(&str, &str)]) -> bool {
    wanted
        .iter()
        .all(|(name, value)| has.iter().any(|(n, v)| n == name && v == value))
}

/// One time series of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Metric name.
    #[serde(rename = "n")]
    pub name: String,
    /// Label names and values.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// What was measured.
    #[serde(rename = "v")]
    pub value: Value,
}

/// The value of a time series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Only grows while the worker lives.
    #[serde(rename = "c")]
    Counter(f64),
    /// Goes both ways; gone with its worker.
    #[serde(rename = "g")]
    Gauge(f64),
    /// Cumulative counts per upper bound, the number of samples and their sum.
    #[serde(rename = "h")]
    Histogram {
        /// (upper bound, samples at or below it), without +Inf.
        #[serde(rename = "b")]
        buckets: Vec<(f64, u64)>,
        /// Number of samples.
        #[serde(rename = "k")]
        count: u64,
        /// Their sum.
        #[serde(rename = "s")]
        sum: f64,
    },
}

impl Value {
    /// The value of a counter or gauge that counts things; 0 for a histogram.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that counts things is whole; what lies outside of u64 is cut off"
    )]
    pub fn whole(&self) -> u64 {
        match self {
            Value::Counter(value) | Value::Gauge(value) => *value as u64,
            Value::Histogram { .. } => 0,
        }
    }
}

impl Report {
    /// Encodes the report as one line. It begins with a line end, which ends any text that a
    /// library handler has printed before it.
    pub fn encode(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("\n{json}\n")
    }

    /// Decodes one line; the error names the place from which the line makes no sense.
    pub fn decode(line: &[u8]) -> Result<Report, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let report = Report {
            phase: Phase::Draining,
            in_flight: 12,
            access: DatabaseAccess::Failing {
                failure_kind: FailureKind::TableLocked,
                for_ms: 2100,
            },
            longest_call_ms: 3,
            metrics: Snapshot {
                series: vec![
                    Series {
                        name: "a_total".into(),
                        labels: vec![("event_type".into(), "order.\n*".into())],
                        value: Value::Counter(2.0),
                    },
                    Series {
                        name: "b".into(),
                        labels: vec![],
                        value: Value::Histogram {
                            buckets: vec![(0.5, 1), (1.0, 3)],
                            count: 4,
                            sum: 3.25,
                        },
                    },
                ],
            },
        };

        let printed = format!("printed by a handler{}", report.encode());

        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "printed by a handler"));
        assert_eq!(
            Report::decode(lines[1].as_bytes()).expect("an encoded report decodes"),
            report
        );
    }

    /// Found by the fuzzing of reports: the last digit had changed.
    #[test]
    fn a_number_is_read_exactly_as_it_was_written() {
        for number in [-6.731_539_363_913_168e146, 8.209_890_002_860_277e-302] {
            let line = serde_json::to_string(&Value::Gauge(number)).expect("a number is JSON");
            let read: Value = serde_json::from_str(&line).expect("what is written is read");
            assert_eq!(read, Value::Gauge(number), "{line}");
        }
    }

    #[test]
    fn a_torn_line_is_an_error() {
        assert!(Report::decode(b"{\"phase\":\"run").is_err());
    }
}
