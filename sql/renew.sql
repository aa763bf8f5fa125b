-- Called by store/lease.rs every quarter of the lease time. By primary key.
select outbox_renew_1($1, $2, make_interval(secs => $3))
