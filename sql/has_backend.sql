-- Called by store/lease.rs for a worker that has died: one of its back ends may still be in a call and commit it. Before our name the
-- connection description may have put another.
select exists (select from pg_stat_activity where right(application_name, length($1::text)) = $1::text)
