//! Outcomes that do not fit, are swallowed, or take too long: each keeps only itself waiting.

use crate::support::{Cli, Daemon, Receiver, Recorder, TestDb, wait_until};

const SET_ASIDE: &str = "dispatchbox_events_set_aside";

/// Makes a trigger on every update of an event.
fn trigger(db: &TestDb, body: &str) {
    db.execute(&format!(
        "create function hurdle() returns trigger language plpgsql as $$ begin {body} end $$;
         create trigger hurdle before update on outbox_event for each row execute function hurdle()"
    ));
}

/// Goal: what the encoding of the database lacks is no reason to lose the outcome.
#[test]
fn a_reason_that_the_encoding_of_the_database_lacks_gives_way() {
    let db = TestDb::in_encoding("LATIN1");
    let receiver = Receiver::start();
    receiver.set_status(500);
    receiver.set_body("café \u{1F4A5} 5 €");
    db.insert_events("order.created", 3);

    let _daemon = Daemon::new(&db)
        .route(receiver.route("*"))
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("all are dead", || db.count("dead") == 3);

    let told =
        "select count(*) from outbox_event where attempts = 2 and last_error like '%café ? 5 ?%'";
    assert_eq!(db.number(told, &[]), 3);
}

/// Goal: rows whose update takes longer than any statement may keep only themselves waiting, are
/// named once, and are counted.
#[test]
fn rows_that_are_slow_to_write_hold_up_no_other() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 120);
    let slow = [ids[5], ids[40], ids[60], ids[100]];
    trigger(
        &db,
        &format!(
            "if new.id = any (array{slow:?}) and exists (select from lag) then perform pg_sleep(100); end if; return new;"
        ),
    );
    db.execute("create table lag as select 1 as is_slow");
    let recorder = Recorder::new();

    let mut daemon = Daemon::new(&db).route(recorder.route("*")).start();
    wait_until("all the others are done", || db.count("done") == 116);
    wait_until("they are known as slow", || {
        daemon.metric(SET_ASIDE, &[("reason", "slow")]) == Some(4.0)
    });
    let more = db.insert_events("order.created", 20);
    wait_until("later ones are done, too", || db.count("done") == 136);
    assert_eq!(db.count_where("attempts <> 1"), 4);
    db.execute("delete from lag");
    wait_until("they are done", || db.count("done") == 140);

    assert_eq!(recorder.history().len(), 140);
    recorder.history().assert_complete([ids, more].concat(), 0);
    for slow in slow {
        let named = format!("event {slow} (order.created): could not settle events");
        assert_eq!(daemon.log().matches(&named).count(), 1, "{}", daemon.log());
    }
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
}

/// Goal: however many outcomes the database refuses, other events are claimed and delivered.
/// Method: many times more refused outcomes than a worker of this batch size has in flight.
#[test]
fn any_number_of_refused_outcomes_stops_no_other_event() {
    let db = TestDb::new();
    trigger(
        &db,
        "if new.event_type = 'bill.due' then raise exception 'the ledger is closed'; end if; return new;",
    );
    db.insert_events("bill.due", 300);
    let mut daemon = Daemon::new(&db)
        .args(["--route", "*=log", "--batch-size", "1"])
        .start();
    wait_until("all outcomes are refused", || {
        daemon.metric(SET_ASIDE, &[("reason", "refused")]) == Some(300.0)
    });

    db.insert_events("order.created", 20);
    wait_until("the others are done", || db.count("done") == 20);

    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    let given_back = "select count(*) from outbox_event where status = 'pending' and attempts = 0";
    assert_eq!(db.number(given_back, &[]), 300);
    assert_eq!(db.leases(), 0);
}

/// Goal: a trigger of the application that sets its own search_path keeps no outcome from being
/// written.
#[test]
fn a_trigger_that_changes_the_search_path_hinders_no_outcome() {
    let db = TestDb::new();
    trigger(
        &db,
        "perform set_config('search_path', 'tenant_' || new.aggregate_id, true); return new;",
    );
    db.insert_events("order.created", 10);
    db.insert_events("bill.due", 3);

    let _daemon = Daemon::new(&db)
        .args(["--route", "bill.*=exec:/bin/false", "--route", "*=log"])
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.1"])
        .start();

    wait_until("each has its outcome", || {
        db.count("done") == 10 && db.count("dead") == 3
    });
}

/// Goal: while outcomes are refused because a trigger misses a function, the log does not say that
/// no call is refused any more; once the function is there, it does. Method: each try of such an
/// outcome waits twice as long as the one before, so the fourth is later than a refusal that no
/// call meets any more is told to be over.
#[test]
fn a_refusal_that_single_outcomes_meet_is_over_when_they_are_taken() {
    let db = TestDb::new();
    trigger(
        &db,
        "if new.event_type = 'bill.due' then perform missing(); end if; return new;",
    );
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "0.05", "--lease-seconds", "60"])
        .start();
    db.insert_events("bill.due", 1);
    let over = "no call is refused any more (schema)";

    wait_until("the outcome has been tried four times", || {
        // Each try counts, and the call that wrote the batch as a whole.
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "schema")]) >= Some(5.0)
    });
    db.insert_events("order.created", 5);
    wait_until("the others are done", || db.count("done") == 5);
    assert!(daemon.log().contains("missing() does not exist"));
    assert!(!daemon.log().contains(over), "{}", daemon.log());

    db.execute(
        "create function missing() returns void language plpgsql as $$ begin return; end $$",
    );
    wait_until("it is done", || db.count("done") == 6);
    wait_until("the log tells the end", || daemon.log().contains(over));
}

/// Goal: where a trigger keeps rows as they were, their events are neither delivered again nor
/// lost.
#[test]
fn an_outcome_that_is_swallowed_is_kept_and_its_handler_runs_once() {
    for kept in ["null", "old"] {
        let db = TestDb::new();
        trigger(
            &db,
            &format!(
                "if new.event_type = 'bill.due' and exists (select from guard) then return {kept}; end if; return new;"
            ),
        );
        db.execute("create table guard as select 1 as is_on");
        let swallowed = db.insert_events("bill.due", 2);
        db.insert_events("order.created", 20);
        let recorder = Recorder::new();

        let mut daemon = Daemon::new(&db)
            .route(recorder.route("*"))
            .args(["--lease-seconds", "4", "--poll-interval", "0.02"])
            .start();
        wait_until("the others are done", || db.count("done") == 20);
        wait_until("they were tried again", || {
            daemon.metric(SET_ASIDE, &[("reason", "swallowed")]) == Some(2.0)
                && daemon.metric("dispatchbox_db_errors_total", &[("reason", "other")]) >= Some(6.0)
        });
        assert_eq!(recorder.history().len(), 22, "return {kept}");
        for id in &swallowed {
            let named =
                format!("event {id} (bill.due): could not settle events: a trigger or a policy");
            assert_eq!(daemon.log().matches(&named).count(), 1, "{}", daemon.log());
        }
        assert_eq!(db.leases(), 1);
        let (_, status) = daemon.get("/api/status");
        assert!(status.contains(r#""set_aside":2"#), "{status}");
        let told = Cli::new([
            "status",
            "--url",
            &format!("http://127.0.0.1:{}", daemon.http_port()),
        ])
        .run()
        .stdout;
        assert!(
            told.contains("2 of them: the database does not take their outcome"),
            "{told}"
        );
        db.execute("delete from guard");
        wait_until("they are done", || db.count("done") == 22);

        assert_eq!(recorder.history().len(), 22, "return {kept}");
        assert_eq!(db.count_where("attempts <> 1"), 0);
        wait_until("none is set aside", || {
            daemon.metric(SET_ASIDE, &[("reason", "swallowed")]) == Some(0.0)
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert_eq!(db.leases(), 0);
    }
}

/// Goal: whatever refuses some of the rows, the others are written at once, each with one attempt.
#[test]
fn rows_that_are_refused_in_any_way_keep_only_themselves_waiting() {
    let db = TestDb::new();
    trigger(
        &db,
        "case new.id % 10
            when 1 then raise exception 'not this one';
            when 2 then insert into gone values (1);
            when 3 then perform 1 / (new.id - new.id);
            when 4 then perform convert_from('\\xff', 'UTF8');
            when 5 then perform repeat('x', 2000000000);
            when 6 then new.status := 'odd';
            else null; end case;
         return new;",
    );
    let ids = db.insert_events("order.created", 100);
    let recorder = Recorder::new();

    let daemon = Daemon::new(&db).route(recorder.route("*")).start();
    wait_until("the sound ones are done", || db.count("done") == 40);
    wait_until("the others are set aside", || {
        daemon.metric(SET_ASIDE, &[("reason", "refused")]) == Some(60.0)
    });

    let sound =
        "select count(*) from outbox_event where attempts = 1 and (id % 10 = 0 or id % 10 > 6)";
    assert_eq!(db.number(sound, &[]), 40);
    assert_eq!(recorder.history().runs().len(), ids.len());
}

/// Goal: what refuses a row only when its transaction commits keeps no other row waiting.
#[test]
fn a_constraint_that_is_checked_at_the_commit_holds_up_only_its_row() {
    let db = TestDb::new();
    db.execute(
        "create function hurdle() returns trigger language plpgsql as $$ begin
             if new.id = 30 then raise exception 'not at the end either'; end if;
             return null; end $$;
         create constraint trigger hurdle after update on outbox_event deferrable initially deferred
             for each row execute function hurdle()",
    );
    db.insert_events("order.created", 60);

    let daemon = Daemon::new(&db).route("*=log").start();
    wait_until("the others are done", || db.count("done") == 59);
    wait_until("it is set aside", || {
        daemon.metric(SET_ASIDE, &[("reason", "refused")]) == Some(1.0)
    });

    let log = daemon.log();
    assert!(
        log.contains("event 30 (order.created): could not settle events: not at the end either"),
        "{log}"
    );
    assert_eq!(db.count_where("attempts <> 1"), 1);
}

/// Goal: a column of the application's own that takes no text of ours does not keep the event.
#[test]
fn an_outcome_whose_text_a_constraint_refuses_is_written_without_it() {
    let db = TestDb::new();
    db.execute("alter table outbox_event add constraint short check (length(last_error) < 5)");
    db.insert_events("order.created", 5);

    let daemon = Daemon::new(&db)
        .route("*=exec:/bin/false")
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("all are dead", || db.count("dead") == 5);

    let exact = "select count(*) from outbox_event where attempts = 2 and last_error is null and last_error_at is not null";
    assert_eq!(db.number(exact, &[]), 5, "{}", daemon.log());
}

/// Goal: a counter that is a smallint ends where it is full, and with it the event.
#[test]
fn an_event_whose_attempts_have_no_room_left_is_dead() {
    let db = TestDb::new();
    db.execute("alter table outbox_event alter attempts type smallint");
    db.insert_events("order.created", 20);
    db.execute("update outbox_event set attempts = 32767 where id = 7");

    let _daemon = Daemon::new(&db)
        .route("*=exec:/bin/false")
        .args([
            "--max-attempts",
            "100000",
            "--retry-backoff-seconds",
            "3600",
        ])
        .start();
    wait_until("all are written", || db.count("pending") == 0);

    let dead = "select id from outbox_event where status = 'dead' and attempts = 32767";
    assert_eq!(db.number(dead, &[]), 7);
    assert_eq!(db.count_where("status = 'retry' and attempts = 1"), 19);
}
