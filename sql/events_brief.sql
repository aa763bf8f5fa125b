-- Called by store/sweep.rs for the events of a lease that is to be swept. By primary key.
select id, coalesce(event_type, ''), greatest(attempts, 0), coalesce(status, '') from outbox_event where id = any ($1) order by id
