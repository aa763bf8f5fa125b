-- A check of `dispatchbox doctor`: version and role of the server. Ends of support are those of
-- https://www.postgresql.org/support/versioning/.
with server as (
  select current_setting('server_version_num')::int / 10000 as major, current_setting('server_version') as version,
         pg_is_in_recovery() as is_standby,
         (select reset_val = 'on' from pg_settings where name = 'default_transaction_read_only') as only_reads),
supported (major, until) as (values
  (12, date '2024-11-21'), (13, '2025-11-13'), (14, '2026-11-12'), (15, '2027-11-11'), (16, '2028-11-09'), (17, '2029-11-08'), (18, '2030-11-14')),
found (level, message, remedy) as (
select 'ok', format('PostgreSQL %s, database %s, role %s', version, current_database(), current_user), null from server
union all
select 'error', format('PostgreSQL %s is older than 12, which this program needs', version), 'upgrade the server' from server where major < 12
union all
select 'warning', format('PostgreSQL %s has got no corrections since %s', version, until), 'upgrade the server'
  from server join supported using (major) where until < current_date
union all
select 'error', 'this server is a standby, and takes no writes', 'name the primary in the DSN, or all hosts and target_session_attrs=read-write' from server where is_standby
union all
select 'error', 'transactions only read: default_transaction_read_only is on', 'set it to off, for the role, the database or the server' from server where only_reads)
select found.*, json_build_object('version', version, 'database', current_database(), 'role', current_user)::text from found, server
