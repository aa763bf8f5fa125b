-- Called by `dispatchbox doctor`: the limits that connections of this role to this database meet,
-- how many connections of other programs each counts now, and what raises it. A server hides the
-- kind of a connection from a role without pg_read_all_stats, but not its database.
select 'max_connections', 'raise max_connections, or lower --processes or --pool-size',
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0),
       (select count(*) from pg_stat_activity
         where coalesce(backend_type, 'client backend') = 'client backend' and datid is not null and application_name not like '%dispatchbox%')
union all
select format('the limit of the database %I', datname), format('ALTER DATABASE %I CONNECTION LIMIT -1', datname), datconnlimit,
       (select count(*) from pg_stat_activity a where a.datid = d.oid and a.application_name not like '%dispatchbox%')
  from pg_database d where datname = current_database() and datconnlimit >= 0
union all
select format('the limit of the role %I', rolname), format('ALTER ROLE %I CONNECTION LIMIT -1', rolname), rolconnlimit,
       (select count(*) from pg_stat_activity a where a.usesysid = r.oid and a.application_name not like '%dispatchbox%')
  from pg_roles r where rolname = current_user and rolconnlimit >= 0 and not rolsuper
