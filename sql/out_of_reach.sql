-- Called by store/out_of_reach.rs where a table seems to be missing: the schemas that hold an
-- outbox, while the search_path reaches none, or a table of that name that is none; no row where it
-- reaches one, or where there is none. A search_path whose source is `client` was asked for by the
-- connection itself: by `options` in the DSN, or by PGOPTIONS. Plan: the catalog's own indexes,
-- below a millisecond.
with outboxes as (
  select c.oid, n.nspname::text as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relname = 'outbox_event' and c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|dispatchbox_bench_)'
     and 3 = (select count(*) from pg_attribute a
               where a.attrelid = c.oid and a.attname in ('event_type', 'status', 'next_run_at') and not a.attisdropped))
select current_setting('search_path'), current_schema()::text,
       (select source = 'client' from pg_settings where name = 'search_path'),
       (select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('outbox_event')),
       array_agg(name order by name)
  from outboxes
 where not exists (select from outboxes where oid = to_regclass('outbox_event'))
having count(*) > 0
