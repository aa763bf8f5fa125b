-- Called by store/out_of_reach.rs where a table seems to be missing: the schemas that hold a table outbox_event, while the search_path reaches
-- none; no row where it reaches one, or where there is none. A search_path whose source is `client` was asked for by the connection itself: by
-- `options` in the DSN, or by PGOPTIONS. Plan: the catalog's own indexes, below a millisecond.
select current_setting('search_path'), current_schema()::text,
       (select source = 'client' from pg_settings where name = 'search_path'),
       array_agg(n.nspname::text order by n.nspname)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relname = 'outbox_event' and c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and to_regclass('outbox_event') is null
having count(*) > 0
