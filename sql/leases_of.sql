-- Called by store/lease.rs for a worker that has died.
select token, worker, expires_at, event_ids from outbox_leases_1() where worker = $1 order by token
