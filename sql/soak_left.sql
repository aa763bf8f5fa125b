-- Looks at the table after the retention's last run: how many events are neither done nor dead
-- letters that were to be dead, and how many dead letters there are of those that were to be.
-- Parameters: the type of the poison events, and the attempts they have. Called by: `dispatchbox
-- bench --soak`, at its end.
SELECT count(*) FILTER (WHERE NOT is_expected), count(*) FILTER (WHERE is_expected)
FROM (SELECT event_type = $1 AND status = 'dead' AND attempts = $2 AS is_expected FROM outbox_event) e
