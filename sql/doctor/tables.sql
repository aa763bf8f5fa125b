-- Called by `dispatchbox doctor`: our tables as vacuum sees them, from the catalog and the server's
-- statistics: name, rows (estimated), dead rows, the last vacuum, whether autovacuum may run, at how
-- many dead rows it does, and the age of the oldest transaction id. PostgreSQL 18 has an upper limit
-- of that number.
select c.oid::regclass::text, greatest(c.reltuples, s.n_live_tup, 0)::bigint, coalesce(s.n_dead_tup, 0),
       to_char(greatest(s.last_vacuum, s.last_autovacuum) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
       coalesce(o.enabled, true),
       round(least(coalesce(o.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
                     + coalesce(o.factor, current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(c.reltuples, 0),
                   nullif(coalesce(o.most, current_setting('autovacuum_vacuum_max_threshold', true)::float8), -1)))::bigint,
       age(c.relfrozenxid)::bigint
  from pg_class c
  left join pg_stat_all_tables s on s.relid = c.oid
 cross join lateral (
       select max(option_value) filter (where option_name = 'autovacuum_enabled')::bool as enabled,
              max(option_value) filter (where option_name = 'autovacuum_vacuum_threshold')::float8 as threshold,
              max(option_value) filter (where option_name = 'autovacuum_vacuum_scale_factor')::float8 as factor,
              max(option_value) filter (where option_name = 'autovacuum_vacuum_max_threshold')::float8 as most
         from pg_options_to_table(c.reloptions)) o
 where c.oid in (to_regclass('outbox_event'), to_regclass('outbox_lease')) and c.relkind = 'r'
 order by c.relname
