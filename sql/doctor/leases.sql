-- A check of `dispatchbox doctor`: leases that expired long ago ($1: seconds), since nothing has
-- swept them: the host of their worker is gone, and no daemon runs.
select 'warning', format('the worker %s is gone, and has held %s event(s) whose lease was over %s ago', worker, n_events, date_trunc('second', clock_timestamp() - expires_at)),
       'start a daemon: it charges these events an attempt, and makes them due again',
       json_build_object('worker', worker, 'events', n_events, 'seconds', extract(epoch from clock_timestamp() - expires_at)::bigint)::text
  from (select worker, sum(cardinality(event_ids)) as n_events, max(expires_at) as expires_at
          from outbox_leases_1() where worker not like 'unreadable/%' group by worker) held
 where expires_at < clock_timestamp() - make_interval(secs => $1::float8) and n_events > 0
 order by expires_at limit 5
