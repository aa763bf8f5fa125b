-- A check of `dispatchbox doctor`: whether the server runs autovacuum at all. Its thresholds for
-- each of our tables come from tables.sql.
select 'error', 'autovacuum is off, so the tables grow for ever',
       'ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()', json_build_object('setting', 'autovacuum')::text
 where not current_setting('autovacuum')::bool
union all
select 'error', 'track_counts is off, so autovacuum never starts',
       'ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()', json_build_object('setting', 'track_counts')::text
 where not current_setting('track_counts')::bool
