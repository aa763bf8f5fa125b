//! Laws of the lines between a worker and its supervisor, on generated reports. Only tests are
//! built with it.

use proptest::prelude::*;

use crate::domain::failure::FailureKind;
use crate::domain::protocol::{DatabaseAccess, Phase, Report, Series, Snapshot, Value};
use crate::system::fuzz;

fn number() -> impl Strategy<Value = f64> {
    use prop::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![
        POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO,
        0.0..1e6,
        any::<u32>().prop_map(f64::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let buckets = prop::collection::vec((number(), any::<u64>()), 0..4);
    prop_oneof![
        number().prop_map(Value::Counter),
        number().prop_map(Value::Gauge),
        (buckets, any::<u64>(), number()).prop_map(|(buckets, count, sum)| Value::Histogram {
            buckets,
            count,
            sum
        }),
    ]
}

fn report() -> impl Strategy<Value = Report> {
    let phase = prop_oneof![
        Just(Phase::Running),
        Just(Phase::Draining),
        Just(Phase::Drained)
    ];
    let failing = |for_ms| DatabaseAccess::Failing {
        failure_kind: FailureKind::TableLocked,
        for_ms,
    };
    let access = prop_oneof![
        Just(DatabaseAccess::Untried),
        Just(DatabaseAccess::Granted),
        any::<u64>().prop_map(failing),
    ];
    let labels = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    let one = (any::<String>(), labels, value()).prop_map(|(name, labels, value)| Series {
        name,
        labels,
        value,
    });
    let series = prop::collection::vec(one, 0..4);
    (phase, any::<[u64; 2]>(), access, series).prop_map(|(phase, counts, access, series)| Report {
        phase,
        in_flight: counts[0],
        access,
        longest_call_ms: counts[1],
        metrics: Snapshot { series },
    })
}

/// The reports among the lines, as the supervisor reads them.
fn reports(bytes: &[u8]) -> Vec<Report> {
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    lines.filter_map(|line| Report::decode(line).ok()).collect()
}

proptest! {
    #![proptest_config(fuzz::cases(1000))]

    #[test]
    fn a_report_is_read_as_it_was_written_whatever_handlers_print_between(
        written in prop::collection::vec((report(), prop_oneof![".{0,9}", "\n?[{}\"a-z:,]{0,6}\n?"]), 0..4),
    ) {
        let text: String = written.iter().map(|(report, printed)| report.encode() + printed).collect();
        let expected: Vec<Report> = written.into_iter().map(|(report, _)| report).collect();

        prop_assert_eq!(reports(text.as_bytes()), expected, "{}", text);
    }

    #[test]
    fn a_torn_or_changed_line_is_another_report_or_none(
        report in report(), cut: prop::sample::Index, byte: u8, is_cut: bool,
    ) {
        let mut line = report.encode().trim().as_bytes().to_vec();
        let at = cut.index(line.len());
        if is_cut {
            line.truncate(at);
            prop_assert!(Report::decode(&line).is_err());
        } else {
            line[at] = byte;
            // What is read is a report, which is written and read again.
            if let Ok(other) = Report::decode(&line) {
                prop_assert_eq!(reports(other.encode().as_bytes()), vec![other]);
            }
        }
    }
}
