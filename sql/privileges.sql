-- Called by store/readiness.rs before the start and for /ready: names what the session's role lacks
-- to deliver events, in the words of a grant; no row when nothing. Only what is there is asked
-- about: the schema has a look of its own (inventory.sql). A schema that the role may not use is
-- left out of the search_path by PostgreSQL, as if nothing were in it, so it is looked for by name.
-- Plan: a handful of rows by the catalog's own indexes, below a millisecond.
with path as (
  select case btrim(name) when '"$user"' then current_user else btrim(btrim(name), '"') end as name, place
    from unnest(string_to_array(current_setting('search_path'), ',')) with ordinality as p (name, place)),
home as (
  select n.oid, n.nspname from pg_namespace n
   where n.oid = coalesce((select relnamespace from pg_class where oid = to_regclass('outbox_event')),
                          (select c.relnamespace from pg_class c join pg_namespace s on s.oid = c.relnamespace join path on path.name = s.nspname
                            where c.relname = 'outbox_event' and c.relkind in ('r', 'p') order by path.place limit 1))),
wanted (place, relation, privilege, columns) as (values
  (1, 'outbox_event', 'SELECT', '{id,aggregate_type,aggregate_id,event_type,payload,status,attempts,next_run_at,created_at,last_error,last_error_at,finished_at,headers}'::text[]),
  (2, 'outbox_event', 'UPDATE', '{status,attempts,next_run_at,last_error,last_error_at,finished_at}'),
  (3, 'outbox_lease', 'SELECT', '{token,worker,expires_at,event_ids}'),
  (4, 'outbox_lease', 'INSERT', '{token,worker,expires_at,event_ids}'),
  (5, 'outbox_lease', 'UPDATE', '{expires_at,event_ids}'),
  (6, 'outbox_lease', 'DELETE', null)),
lacking as (
  select w.place, w.relation, w.privilege, w.columns,
         case when w.columns is not null then
           array(select a.attname::text from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and a.attname = any (w.columns) and not has_column_privilege(c.oid, a.attnum, w.privilege)
                  order by array_position(w.columns, a.attname::text))
              when not has_table_privilege(c.oid, w.privilege) then '{}' end as lacked
    from wanted w cross join home join pg_class c on c.relnamespace = home.oid and c.relname = w.relation and c.relkind in ('r', 'p'))
select current_user::text, lacks from (
  select 0 as place, 'USAGE on schema ' || nspname as lacks from home where not has_schema_privilege(oid, 'USAGE')
  union all
  select place, privilege || case when cardinality(lacked) < cardinality(columns) then ' (' || array_to_string(lacked, ', ') || ')' else '' end
                || ' on ' || relation
    from lacking where columns is null and lacked is not null or cardinality(lacked) > 0
  union all
  select 7, 'EXECUTE on function ' || p.proname from pg_proc p join home on home.oid = p.pronamespace
   where p.proname in ('outbox_claim_2', 'outbox_settle_1', 'outbox_settle_each_1', 'outbox_read_1', 'outbox_pass_over_1', 'outbox_look_again_1', 'outbox_try_read_1', 'outbox_skip_1',
                     'outbox_leases_1', 'outbox_renew_1') and not has_function_privilege(p.oid, 'EXECUTE')) l
 order by place, lacks
