-- A check of `dispatchbox doctor`: replication slots that hold back vacuum, or that nothing reads,
-- so that the server keeps its WAL for ever.
select 'warning', format('nothing reads the replication slot %I, and it keeps %s of WAL', slot_name, pg_size_pretty(kept)),
       format('start its reader, or SELECT pg_drop_replication_slot(%L)', slot_name),
       json_build_object('slot', slot_name, 'bytes', kept, 'age', age(xmin))::text
  from (select *, case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) end as kept from pg_replication_slots) s
 where not active and not temporary and restart_lsn is not null
union all
select 'warning', format('the replication slot %I holds back vacuum by %s transactions', slot_name, age(xmin)),
       format('see why its reader is behind (a standby with hot_standby_feedback, or a query there), or SELECT pg_drop_replication_slot(%L)', slot_name),
       json_build_object('slot', slot_name, 'age', age(xmin))::text
  from pg_replication_slots where active and age(xmin) > 1000000
 limit 5
