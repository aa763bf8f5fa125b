//! The line a worker writes to its supervisor: once a second, when its phase changes, and at the end.

use serde::{Deserialize, Serialize};

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it stands.
    pub phase: Phase,
    /// Events claimed and not settled.
    pub in_flight: u64,
    /// Its last database call succeeded.
    pub db_connected: bool,
    /// Milliseconds since the slowest of fetcher, settler and keeper last turned; a large number means a stuck server.
    pub turned_ms: u64,
    /// Everything it has counted since it started.
    pub metrics: Snapshot,
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

impl Report {
    /// Encodes the report as one line, its end included.
    pub fn encode(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Decodes one line; the error names the place where it stopped making sense.
    pub fn decode(line: &str) -> Result<Report, serde_json::Error> {
        serde_json::from_str(line)
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
            db_connected: true,
            turned_ms: 3,
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

        let line = report.encode();

        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            Report::decode(&line).expect("an encoded report decodes"),
            report
        );
    }

    #[test]
    fn a_torn_line_is_an_error() {
        assert!(Report::decode("{\"phase\":\"run").is_err());
    }
}
