-- Called by store/stats.rs once in a session. With these settings each count walks an index of ours
-- to its limit, whatever the statistics say and whatever other indexes there are: with the
-- predecessor's index on next_run_at beside ours it read all due events and sorted them. PostgreSQL
-- 12 knows no incremental sort. $1: for the transaction alone.
select set_config(name, 'off', $1) from pg_settings
 where name in ('enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'enable_incremental_sort')
