-- Called by store/lease.rs for a worker that has died: one of its back ends may still be in a call and commit it.
select exists (select from pg_stat_activity where application_name = $1)
