-- Called by store/inspect.rs: the workers that hold leases, as far as leases tell; the caller
-- bounds their number. Events that are done stay named until their lease ends, so n_events is an
-- upper bound of what is in flight. Leases of events that cannot be read are left out, because no
-- worker holds them.
select worker, count(*), sum(cardinality(event_ids))::bigint, max(expires_at), max(expires_at) < clock_timestamp()
  from outbox_leases_1()
 where worker not like 'unreadable/%'
 group by worker order by worker limit $1
