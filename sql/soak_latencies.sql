-- Returns for one of 101 archived events that were done at the first attempt when they were done, in
-- seconds by the database's clock, and how long after the begin of the transaction that wrote them.
-- Called by: `dispatchbox bench --soak`, after each run of the retention. (101 is no divisor of the
-- number of events in a transaction.)
SELECT extract(epoch FROM finished_at)::float8, extract(epoch FROM finished_at - created_at)::float8
FROM outbox_event_archive
WHERE id % 101 = 0 AND attempts = 1
