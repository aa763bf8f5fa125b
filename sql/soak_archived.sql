-- Looks at all archived events: how many there are, and how many of them are not done after the
-- planned number of attempts (`n_failures` in src/dev/bench/soak/handler.rs has the same rule).
-- Called by: `dispatchbox bench --soak`, after each run of the retention.
SELECT count(*),
       count(*) FILTER (WHERE status <> 'done'
                           OR attempts <> 1 + CASE WHEN id % 400 = 11 THEN 2 WHEN id % 20 = 7 THEN 1 ELSE 0 END)
FROM outbox_event_archive
