-- Called by store/schema/mod.rs before a migration or a comparison: binds the session to the schema
-- that holds outbox_event, or else to the first one of the search_path that lasts longer than the
-- session, and returns its name; no row where there is none. $1: binds the transaction alone.
select home, set_config('search_path', format('%I, pg_temp', home), $1)
  from (select coalesce((select nspname from pg_namespace n join pg_class c on c.relnamespace = n.oid where c.oid = to_regclass('outbox_event')),
                        (select name from unnest(current_schemas(false)) with ordinality as path (name, place)
                          where left(name, 8) <> 'pg_temp_' order by place limit 1)) as home) h
 where home is not null
