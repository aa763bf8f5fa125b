-- Called by store/inspect.rs for `dispatchbox explain`: the state of one event, and the lease that
-- names it. By primary key; the leases without reading dead rows.
select now(), coalesce(e.aggregate_type, ''), coalesce(e.aggregate_id, ''), coalesce(e.event_type, ''), coalesce(e.status, ''),
       coalesce(e.attempts, 0), e.next_run_at, e.created_at, e.last_error, e.last_error_at, e.finished_at,
       e.next_run_at <= now(), l.worker, l.expires_at, l.token
  from outbox_event e
  left join lateral (select worker, expires_at, token from outbox_leases_1() where e.id = any (event_ids) limit 1) l on true
 where e.id = $1
