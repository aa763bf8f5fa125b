-- Called by store/dead.rs. One transaction, whatever the number of ids; see schema.sql for what is left alone.
select outbox_requeue_1($1)
