-- Returns the database's time once an event is claimed (or done, if the claim was too short to be
-- seen); no row before. Called by: `dispatchbox bench`, a thousand times a second until there is a
-- row, and not any more then.
SELECT extract(epoch FROM clock_timestamp())::float8
WHERE EXISTS (SELECT FROM outbox_lease) OR EXISTS (SELECT FROM outbox_event WHERE id = 1 AND status = 'done')
