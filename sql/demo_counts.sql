-- Counts the events of the demo by status. Called by: `dispatchbox demo`. Reads the whole table,
-- which is small there.
SELECT count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'retry'),
       count(*) FILTER (WHERE status = 'done'), count(*) FILTER (WHERE status = 'dead')
FROM outbox_event
