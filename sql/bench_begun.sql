-- Tells the database's time once somebody has claimed (or, where that went too fast to be seen, done) an event; no row before.
-- Called by: `dispatchbox bench`, a thousand times a second until there is a row, and not any more then.
SELECT extract(epoch FROM clock_timestamp())::float8
WHERE EXISTS (SELECT FROM outbox_lease) OR EXISTS (SELECT FROM outbox_event WHERE id = 1 AND status = 'done')
