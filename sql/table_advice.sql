-- Called by store/schema/mod.rs after a migration or a comparison, in a session that is bound to
-- the schema: what the owner of the tables might do.
select format('nothing here uses the index %I.%I, and each insert pays for it; if no other program does: DROP INDEX CONCURRENTLY %I.%I',
              schemaname, indexname, schemaname, indexname)
  from pg_indexes where schemaname = current_schema() and tablename = 'outbox_event' and indexname = $1::text
union all
select format('%s is unlogged: PostgreSQL empties it when the server crashes; if that is not meant: ALTER TABLE %I.%s SET LOGGED',
              relname, current_schema(), relname)
  from pg_class
 where relnamespace = (select oid from pg_namespace where nspname = current_schema()) and relkind = 'r' and relpersistence = 'u'
   and relname in ('outbox_event', 'outbox_event_archive')
union all
select format('outbox_event_archive has no column %I, and an event with a value there is neither archived nor discarded: ALTER TABLE %I.outbox_event_archive ADD COLUMN %I %s',
              e.attname, current_schema(), e.attname, format_type(e.atttypid, e.atttypmod))
  from pg_attribute e
 where e.attrelid = to_regclass('outbox_event') and to_regclass('outbox_event_archive') is not null and e.attnum > 0 and not e.attisdropped and e.attgenerated = ''
   and e.attname <> 'claim_token'
   and not exists (select from pg_attribute a
                    where a.attrelid = to_regclass('outbox_event_archive') and a.attname = e.attname and not a.attisdropped)
union all
select format('%s %s when that is archived or discarded (foreign key %I, on delete %s); if that is not meant: declare it without that, and the event stays',
              conrelid::regclass, case confdeltype when 'c' then 'loses the rows that refer to an event' else 'forgets to which event its rows refer' end,
              conname, case confdeltype when 'c' then 'cascade' when 'n' then 'set null' else 'set default' end)
  from pg_constraint where contype = 'f' and confrelid = to_regclass('outbox_event') and confdeltype in ('c', 'n', 'd') and conparentid = 0
union all
select format('%s has row-level security, which may hide rows from another role than %I: look with the DSN of each daemon, too',
              relname, current_user)
  from pg_class where oid = to_regclass('outbox_event') and relrowsecurity and not row_security_active(oid)
