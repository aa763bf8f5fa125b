-- Called by store/lease.rs after a claim whose answer was lost: ends this worker's leases that it
-- does not know of. The events were never changed, so they are due at once. outbox_leases_1 finds
-- the leases without reading dead rows.
delete from outbox_lease
 where worker = $1 and token = any (array(select token from outbox_leases_1() where worker = $1 and token <> all ($2)))
returning token
