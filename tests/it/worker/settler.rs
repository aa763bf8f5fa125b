//! Outcomes whose rows are locked or refused.

use rustix::process::Signal;

use super::{config, exec};
use crate::support::{Daemon, Recorder, TestDb, TestDir, wait_until};

/// Goal: an outcome whose row was locked is written soon after the lock is gone, also while others
/// pour in. Method: settling is made slow, so that outcomes wait at every moment until the last
/// event is done; the row is freed long before.
#[test]
fn an_outcome_set_aside_is_written_while_others_pour_in() {
    let db = TestDb::new();
    db.execute(
        "create function slowly() returns trigger language plpgsql as $$ begin perform pg_sleep(0.1); return null; end $$;
         create trigger slowly after update on outbox_event for each statement execute function slowly()",
    );
    let held = db.insert_events("held.one", 1)[0];
    let (directory, recorder) = (TestDir::new(), Recorder::new().gated());
    let routes = [
        exec("held.*", &recorder.program(), ""),
        "[[route]]\nevent_type = \"*\"\nhandler = \"log\"\n".to_owned(),
    ];
    let daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--query-timeout", "1"])
        .args(["--batch-size", "500", "--lease-seconds", "60"])
        .start();
    recorder.wait_runs(1);
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute(
        "select from outbox_event where id = $1 for update",
        &[&held],
    )
    .unwrap();
    db.insert_events("order.created", 60_000);

    recorder.open_gate();
    wait_until("its outcome has met the lock", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")]) >= Some(3.0)
    });
    lock.rollback().unwrap();

    let state = "select case when (select status = 'done' from outbox_event where id = $1) then 1 \
                 when exists (select from outbox_event where status = 'pending' and id <> $1) then 0 else 2 end::bigint";
    let mut found = 0;
    wait_until("it or everything else is done", || {
        found = db.number(state, &[&held]);
        found != 0
    });
    assert_eq!(
        found, 1,
        "it was written only when nothing else was left to do"
    );
}

/// Goal: an event whose outcome the database refuses is named with the database's words, stays
/// leased, and is settled once it is taken.
#[test]
fn a_refused_outcome_is_named_and_kept_until_it_is_taken() {
    let db = TestDb::new();
    db.execute(
        "create table veto as select 'not on sundays'::text as why;
         create function veto() returns trigger language plpgsql as $$ begin
             if new.event_type = 'refund.due' and exists (select from veto) then
                 raise exception '%', (select why from veto);
             end if;
             return new; end $$;
         create trigger veto before update on outbox_event for each row execute function veto()",
    );
    db.insert_events("order.created", 9);
    let refused = db.insert_events("refund.due", 1)[0];
    db.insert_events("order.created", 10);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("refund.*"))
        .route("*=log")
        .args(["--lease-seconds", "4"])
        .start();
    let said = |what: &str| {
        let line = format!("event {refused} (refund.due): {what}");
        daemon.log().matches(&line).count()
    };
    let n_refusals = || daemon.metric("dispatchbox_db_errors_total", &[("reason", "other")]);

    wait_until("all the others are done", || db.count("done") == 19);
    wait_until("it has been tried several times", || {
        n_refusals() >= Some(5.0)
    });
    assert_eq!(
        said("could not settle events: not on sundays"),
        1,
        "{}",
        daemon.log()
    );
    assert_eq!(db.leases(), 1);
    db.execute("update veto set why = 'not on mondays either'");
    wait_until("the new reason is told", || {
        said("could not settle events: not on mondays either") == 1
    });
    db.execute("delete from veto");
    // It waits twice as long each time.
    wait_until("it is done", || db.count("done") == 20);

    wait_until("its end is told", || {
        said("its outcome `done` is refused no more") == 1
    });
    assert_eq!(recorder.history().runs(), [(refused, 1)]);
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_eq!(db.leases(), 0);
}

/// Goal: a trigger that refuses everything does not fill the log with names.
#[test]
fn of_many_refused_outcomes_only_some_are_named() {
    let db = TestDb::new();
    db.execute(
        "create function veto() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
         create trigger veto before update on outbox_event for each row execute function veto()",
    );
    db.insert_events("order.created", 100);

    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_log("outcomes of further events are refused");
    let tries = daemon.metric("dispatchbox_db_errors_total", &[("reason", "other")]);
    wait_until("all were tried again", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "other")])
            > tries.map(|n| n + 100.0)
    });

    assert_eq!(daemon.log().matches("is kept and tried again").count(), 10);
    assert_eq!(
        daemon.log().matches("outcomes of further events").count(),
        1
    );
}

/// Makes a trigger that refuses `done` for refunds, and any other word not.
fn audit(db: &TestDb) {
    db.execute(
        "create function audit() returns trigger language plpgsql as $$ begin
             if new.event_type = 'refund.due' and new.status = 'done' then raise exception 'audit says no'; end if;
             return new; end $$;
         create trigger audit before update on outbox_event for each row execute function audit()",
    );
}

/// Events of this type that nothing has touched: no attempt is charged, and no text is written.
fn n_untouched(db: &TestDb, event_type: &str) -> i64 {
    db.number(
        "select count(*) from outbox_event where event_type = $1 and status = 'pending' and attempts = 0 and last_error is null",
        &[&event_type],
    )
}

/// Goal: a drain does not wait until its timeout for an outcome that is refused again and again:
/// the event is given back and named.
#[test]
fn a_drain_gives_back_an_event_whose_outcome_is_refused_once_more() {
    let db = TestDb::new();
    audit(&db);
    db.insert_events("order.created", 4);
    let refused = db.insert_events("refund.due", 2);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--drain-timeout", "300"])
        .start();
    wait_until("the others are done", || db.count("done") == 4);
    wait_until("two outcomes are set aside", || {
        daemon.metric("dispatchbox_events_set_aside", &[("reason", "refused")]) == Some(2.0)
    });

    daemon.signal(Signal::TERM);

    daemon.assert_exits(0);
    assert_eq!(n_untouched(&db, "refund.due"), 2);
    assert_eq!(db.leases(), 0);
    for id in refused {
        let named = format!(
            "event {id} (refund.due): could not settle events: audit says no; the worker drains"
        );
        wait_until("the log names it", || {
            daemon.log().matches(&named).count() == 1
        });
    }
    daemon.assert_no_files();
    assert_eq!(recorder.history().len(), 6);
}

/// Goal: where a drain is ended by force, only the event is charged whose handler runs; the log
/// counts what was given back.
#[test]
fn an_event_whose_outcome_is_refused_is_not_charged_where_another_handler_outlasts_the_drain() {
    let db = TestDb::new();
    audit(&db);
    db.insert_events("order.created", 4);
    db.insert_events("refund.due", 1);
    db.insert_events("held.one", 1);
    let (directory, quick, held) = (TestDir::new(), Recorder::new(), Recorder::new().gated());
    let routes = [
        exec("held.*", &held.program(), ""),
        exec("*", &quick.program(), ""),
    ];
    let mut daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--drain-timeout", "2", "--retry-backoff-seconds", "3600"])
        .start();
    wait_until("the others are done", || db.count("done") == 4);
    wait_until("one outcome is set aside", || {
        daemon.metric("dispatchbox_events_set_aside", &[("reason", "refused")]) == Some(1.0)
    });
    held.wait_runs(1);

    assert_eq!(daemon.terminate(), 1, "{}", daemon.log());

    assert_eq!(n_untouched(&db, "refund.due"), 1);
    let charged = "select count(*) from outbox_event where event_type = 'held.one' and status = 'retry' and attempts = 1";
    assert_eq!(db.number(charged, &[]), 1);
    assert_eq!(db.leases(), 0);
    // They may be in one lease or in two.
    let told = |word: &str| {
        let log = daemon.log();
        let swept = log.lines().filter(|line| line.contains("swept a lease"));
        let counts = swept.filter_map(|line| {
            line.split_once(word)?
                .1
                .split([' ', ','])
                .next()?
                .parse::<u32>()
                .ok()
        });
        counts.sum::<u32>()
    };
    wait_until("the log counts what was released", || {
        told(" released ") == 1
    });
    // None where the worker itself has written the end of the handler that it killed.
    assert!(told(" charged ") <= 1, "{}", daemon.log());
    held.open_gate();
}
