-- Called by `dispatchbox doctor`: how old the oldest transaction ids of this database are, and at
-- which age autovacuum begins to freeze them, whatever its settings.
select 'transaction ids', age(datfrozenxid)::bigint, current_setting('autovacuum_freeze_max_age')::bigint
  from pg_database where datname = current_database()
union all
select 'multixact ids', mxid_age(datminmxid)::bigint, current_setting('autovacuum_multixact_freeze_max_age')::bigint
  from pg_database where datname = current_database()
