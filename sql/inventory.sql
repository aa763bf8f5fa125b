-- Called by store/schema/mod.rs: names what is there, in the words of the steps in schema.sql.
-- Everything of ours is looked for where outbox_event is, or, when it is nowhere, where it would be
-- made.
with home as (
  select coalesce((select relnamespace from pg_class where oid = to_regclass('outbox_event')),
                  (select oid from pg_namespace where nspname = current_schema())) as schema_id),
tables as (
  select c.* from pg_class c, home
   where c.relnamespace = schema_id and c.relkind in ('r', 'p') and c.relname in ('outbox_event', 'outbox_event_archive', 'outbox_lease'))
select 'table ' || relname from tables
union all
select 'column ' || t.relname || '.' || a.attname from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
union all
select 'setting ' || relname || '.' || split_part(setting, '=', 1) from tables, unnest(reloptions) setting
union all
-- An invalid index is no index: nothing uses it.
select 'index ' || c.relname from tables t join pg_index i on i.indrelid = t.oid and i.indisvalid join pg_class c on c.oid = i.indexrelid
union all
select 'trigger ' || g.tgname from tables t join pg_trigger g on g.tgrelid = t.oid
union all
select 'function ' || p.proname from pg_proc p, home where p.pronamespace = schema_id and p.proname like '%outbox\_%'
