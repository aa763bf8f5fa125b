-- Called by store/settle.rs after an answer that never came, to see what was written. By primary key.
select id, coalesce(status, ''), greatest(attempts, 0) from outbox_event where id = any ($1) order by id
