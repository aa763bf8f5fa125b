-- A check of `dispatchbox doctor`: indexes that an interrupted build has left, which are written
-- and never read. One that is being built is none. A missing index is a flaw of the schema.
select 'error', format('the index %s on %s is not valid: a build of it was interrupted', i.indexrelid::regclass, i.indrelid::regclass),
       format('DROP INDEX CONCURRENTLY %s; then dispatchbox migrate, where it is one of ours', i.indexrelid::regclass),
       json_build_object('index', i.indexrelid::regclass::text, 'table', i.indrelid::regclass::text)::text
  from pg_index i
 where i.indrelid in (to_regclass('outbox_event'), to_regclass('outbox_lease'), to_regclass('outbox_event_archive')) and not i.indisvalid
   and not exists (select from pg_stat_progress_create_index p
                    where p.datname = current_database() and coalesce(p.relid, i.indrelid) = i.indrelid)
