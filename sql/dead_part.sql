-- Called by store/dead.rs for a dead letter that dead_show.sql could not read: without the columns
-- that may be large. By primary key.
select id, coalesce(aggregate_type, ''), coalesce(aggregate_id, ''), coalesce(event_type, ''), 'null', status,
       coalesce(attempts, 0), next_run_at, created_at, last_error, last_error_at, finished_at, null::text
  from outbox_event
 where id = $1 and status || '' = 'dead'
