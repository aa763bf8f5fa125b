-- Called by store/settle.rs after a call without an answer, to find out what was written. By
-- primary key.
select id, coalesce(status, ''), greatest(attempts, 0) from outbox_event where id = any ($1) order by id
