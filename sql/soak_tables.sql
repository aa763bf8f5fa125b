-- Returns one row for outbox_event and one for outbox_lease: dead rows as the statistics know them,
-- bytes of the table, and bytes of its indexes. Called by: `dispatchbox bench --soak`, every five
-- seconds.
SELECT n_dead_tup, pg_relation_size(relid), pg_indexes_size(relid)
FROM pg_stat_user_tables
WHERE relid IN ('outbox_event'::regclass, 'outbox_lease'::regclass)
ORDER BY relname
