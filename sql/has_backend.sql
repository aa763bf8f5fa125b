-- Called by store/lease.rs for a worker that has died: one of its back ends may still be in a call
-- and commit it. Before our name the connection description may have put another. Behind a pooler
-- ($2) a connection keeps the name of the client that used it last; while that one uses it, it is
-- not idle.
select exists (select from pg_stat_activity
                where right(application_name, length($1::text)) = $1::text and (state is distinct from 'idle' or not $2))
