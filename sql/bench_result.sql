-- Looks at the whole table after a run: when the last event was done, how many are not, how many
-- needed more than one attempt. Called by: `dispatchbox bench`.
SELECT extract(epoch FROM max(finished_at))::float8,
       count(*) FILTER (WHERE status <> 'done'),
       count(*) FILTER (WHERE status = 'done' AND attempts <> 1)
FROM outbox_event
