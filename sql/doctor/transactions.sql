-- A check of `dispatchbox doctor`: transactions that are open for long ($1: seconds). While one
-- is, vacuum removes nothing that was done since it began, in no table of its database.
with others as (
  select pid, state, application_name, usename, xact_start, query, backend_xmin, backend_xid, backend_type
    from pg_stat_activity where pid <> pg_backend_pid() and (datname = current_database() or backend_type = 'walsender'))
select 'warning',
       format('process %s (%s, %s) has had a transaction open for %s: %s', pid, coalesce(usename, 'no role'), coalesce(state, backend_type),
              date_trunc('second', clock_timestamp() - xact_start), left(regexp_replace(query, '\s+', ' ', 'g'), 120)),
       format('end it in its program, or SELECT pg_terminate_backend(%s); idle_in_transaction_session_timeout ends those that forget', pid),
       json_build_object('pid', pid, 'role', usename, 'application', application_name, 'state', state,
                         'seconds', extract(epoch from clock_timestamp() - xact_start)::bigint)::text
  from (select * from others
         where xact_start < clock_timestamp() - make_interval(secs => $1::float8) and (backend_xmin is not null or backend_xid is not null)
           and backend_type in ('client backend', 'walsender')
         order by xact_start limit 5) old
union all
select 'unknown', format('the role %I does not see what the other sessions do', current_user), format('GRANT pg_read_all_stats TO %I', current_user), '{}'
 where not pg_has_role('pg_read_all_stats', 'USAGE') and exists (select from others where query = '<insufficient privilege>')
