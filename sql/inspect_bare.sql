-- Called by store/inspect.rs where inspect.sql meets a text that cannot be read: the same without
-- texts of the event.
select now(), '', '', '', case when e.status || '' in ('pending', 'retry', 'done', 'dead') then e.status || '' else '' end,
       coalesce(e.attempts, 0), e.next_run_at, e.created_at, null::text, e.last_error_at, e.finished_at,
       e.next_run_at <= now(), l.worker, l.expires_at, l.token
  from outbox_event e
  left join lateral (select worker, expires_at, token from outbox_leases_1() where e.id = any (event_ids) limit 1) l on true
 where e.id = $1
