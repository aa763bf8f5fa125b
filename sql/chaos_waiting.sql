-- Counts the events that have not ended, and the leases. Called by `dispatchbox chaos` while the
-- daemons drain what is left.
select (select count(*) from outbox_event where status not in ('done', 'dead')), (select count(*) from outbox_lease)
