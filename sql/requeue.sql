-- Called by store/dead.rs. One transaction, whatever the number of ids; see schema.sql for what is
-- left alone, and why.
select id, reason from outbox_requeue_2($1)
