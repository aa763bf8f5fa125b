-- Called by store/lease.rs every few seconds, before a sweep. Oldest first.
select token, worker, expires_at, event_ids from outbox_leases_1() where expires_at < clock_timestamp() order by expires_at, token limit $1
