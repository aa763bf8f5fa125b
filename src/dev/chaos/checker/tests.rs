use super::*;

/// A healthy record: a plain event, a retried one, one that is refused, and a poison one that
/// killed its workers.
fn healthy() -> Evidence {
    let record = "\
1 1 50 begun
1 1 50 done
2 1 50 begun
2 1 50 failed
2 2 51 begun
2 2 51 failed
2 3 51 begun
2 3 51 done
3 1 50 begun
3 1 50 refused
4 1 60 begun
4 2 61 begun
4 3 62 begun
";
    let row = |id, kind, status: &str, attempts| Row {
        id,
        kind: Some(kind),
        status: status.to_owned(),
        attempts,
    };
    let mut evidence = Evidence {
        entries: crate::dev::chaos::history::parse(record).expect("a record"),
        rows: vec![
            row(1, Kind::Plain, "done", 1),
            row(2, Kind::Retried, "done", 3),
            row(3, Kind::Refused, "dead", 1),
            row(4, Kind::Poison, "dead", 3),
        ],
        committed: vec![1, 2, 3, 4],
        rolled_back: vec![5],
        max_parallel: 2,
        ..Evidence::default()
    };
    evidence.note_crashes();
    evidence
}

fn record(evidence: &mut Evidence, lines: &str) {
    let more = crate::dev::chaos::history::parse(lines).expect("a record");
    evidence.entries.extend(more);
}

/// Checks that exactly these laws are broken.
#[track_caller]
fn check(what: impl FnOnce(&mut Evidence), broken: &[&str]) {
    let mut evidence = healthy();
    what(&mut evidence);
    let laws = evidence.check();
    let found: Vec<&str> = laws
        .iter()
        .filter(|law| law.n_broken > 0)
        .map(|law| law.name)
        .collect();
    assert_eq!(found, broken, "{laws:#?}");
}

const KILLED: Hit = Hit {
    is_killed: true,
    is_frozen: false,
    is_lost: false,
};

const FROZEN: Hit = Hit {
    is_killed: false,
    is_frozen: true,
    is_lost: false,
};

#[test]
fn a_healthy_record_breaks_no_law() {
    check(|_| {}, &[]);
}

#[test]
fn a_committed_event_that_is_gone_waits_or_was_never_run_is_lost() {
    check(|it| it.committed.push(9), &["lost"]);
    check(|it| it.rows[0].status = "retry".to_owned(), &["lost"]);
    check(
        |it| it.entries.retain(|entry| entry.id != 3),
        &["lost", "fenced"],
    );
}

#[test]
fn an_event_that_was_rolled_back_and_run_or_stored_is_told() {
    check(
        |it| record(it, "5 1 50 begun\n5 1 50 done\n"),
        &["rolled back"],
    );
    check(|it| it.rolled_back.push(1), &["rolled back"]);
}

#[test]
fn an_event_that_is_dead_or_done_and_should_not_be_is_told() {
    check(|it| it.rows[0].status = "dead".to_owned(), &["fate"]);
    check(|it| it.rows[2].status = "done".to_owned(), &["fate"]);
}

#[test]
fn an_attempt_above_the_maximum_is_told() {
    check(
        |it| {
            record(it, "4 4 63 begun\n");
            it.note_crashes();
            it.rows[3].attempts = 4;
        },
        &["attempts", "fenced"],
    );
}

/// A stale outcome counts an attempt that no run was.
#[test]
fn an_end_by_a_stale_outcome_is_told() {
    check(
        |it| {
            it.rows[0].attempts = 3;
            it.hit.insert(50, FROZEN);
        },
        &["fenced"],
    );
}

#[test]
fn an_attempt_that_a_crash_should_have_cost_and_did_not_is_told() {
    check(|it| record(it, "4 3 63 begun\n"), &["charged"]);
    // A worker that was frozen meanwhile may have begun it under a lease that it has lost.
    check(
        |it| {
            record(it, "4 3 63 begun\n");
            it.hit.insert(63, FROZEN);
        },
        &[],
    );
}

#[test]
fn an_attempt_that_was_charged_for_no_reason_is_told() {
    // A run that was cut off although its worker lives.
    check(
        |it| {
            it.entries.retain(|entry| entry.id != 1);
            record(it, "1 1 50 begun\n1 2 50 begun\n1 2 50 done\n");
            it.rows[0].attempts = 2;
        },
        &["spared"],
    );
    // The same where a fault hit it.
    check(
        |it| {
            it.entries.retain(|entry| entry.id != 1);
            record(it, "1 1 52 begun\n1 2 50 begun\n1 2 50 done\n");
            it.rows[0].attempts = 2;
            it.hit.insert(52, KILLED);
        },
        &[],
    );
    // Attempts that no run was: as many as three killed workers may have had in hand.
    let charge = |it: &mut Evidence, n: u32| {
        it.entries.retain(|entry| entry.id != 1);
        record(it, &format!("1 {} 50 begun\n1 {} 50 done\n", n + 1, n + 1));
        it.rows[0].attempts = n + 1;
    };
    check(|it| charge(it, 6), &[]);
    check(|it| charge(it, 7), &["spared"]);
}

#[test]
fn a_run_too_many_needs_a_fault_that_hit_its_worker_or_the_one_before() {
    let again = "1 1 51 begun\n1 1 51 done\n";
    check(|it| record(it, again), &["duplicates"]);
    for worker in [50, 51] {
        for hit in [KILLED, FROZEN] {
            check(
                |it| {
                    record(it, again);
                    it.hit.insert(worker, hit);
                },
                &[],
            );
        }
    }
    // After the end of the event, under a later number.
    check(|it| record(it, "1 2 51 begun\n"), &["duplicates"]);
}

#[test]
fn no_worker_leaves_more_behind_than_it_can_hold() {
    let more = |n| {
        move |it: &mut Evidence| {
            it.hit.insert(50, KILLED);
            for _ in 0..n {
                record(it, "1 1 51 begun\n1 1 51 done\n");
            }
        }
    };
    check(more(UNSETTLED_MAX + 2), &[]);
    check(more(UNSETTLED_MAX + 3), &["duplicates"]);
}

#[test]
fn whatever_is_left_is_told() {
    check(|it| it.leases = 1, &["left"]);
    check(|it| it.left.push("process 7".to_owned()), &["left"]);
    check(|it| it.bad_ends.push("exit code 1".to_owned()), &["left"]);
}
