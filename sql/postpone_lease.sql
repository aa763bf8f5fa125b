-- Called by store/lease.rs: lets an expired lease, whose events cannot be written now, expire again
-- later, so that every keeper passes over it until then. By primary key.
update outbox_lease set expires_at = clock_timestamp() + make_interval(secs => $3)
 where token = $1 and worker = $2 and expires_at < clock_timestamp()
returning token
