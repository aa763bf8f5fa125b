-- Called by store/dead.rs for a dead letter that dead_part.sql could not read either: only the
-- columns of a fixed size. By primary key.
select id, '', '', '', 'null', 'dead',
       coalesce(attempts, 0), next_run_at, created_at, null::text, last_error_at, finished_at, null::text
  from outbox_event
 where id = $1 and status || '' = 'dead'
