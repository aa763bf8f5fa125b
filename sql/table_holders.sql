-- Called by store/schema/migration.rs when a step did not get its lock: the server processes that
-- have held a lock on our tables for longest. Processes of other roles are seen, what they do is
-- not, unless one may read all statistics.
select format('server process %s', pid)
       || coalesce(' for ' || extract(epoch from clock_timestamp() - xact_start)::int || ' s', '')
  from pg_stat_activity
 where pid <> pg_backend_pid()
   and pid in (select pid from pg_locks
                where granted and relation in (to_regclass('outbox_event'), to_regclass('outbox_event_archive'), to_regclass('outbox_lease'))
                  and database = (select oid from pg_database where datname = current_database()))
 order by xact_start limit 3
