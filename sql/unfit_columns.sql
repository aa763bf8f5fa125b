-- Called by store/schema/mod.rs: names the columns of outbox_event whose type this program cannot work with, in a table that the application
-- made by itself: a claim or a write would fail. Texts may have a length and a domain, except where we write what is longer.
with wanted (place, name, types) as (values
  (1, 'id', '{bigint}'::text[]),
  (2, 'aggregate_type', '{text,character varying}'),
  (3, 'aggregate_id', '{text,character varying}'),
  (4, 'event_type', '{text,character varying}'),
  (5, 'payload', '{jsonb,json}'),
  (6, 'status', '{text,character varying}'),
  (7, 'attempts', '{integer,smallint}'),
  (8, 'next_run_at', '{timestamp with time zone}'),
  (9, 'created_at', '{timestamp with time zone}'),
  (10, 'last_error', '{text,character varying}'),
  (11, 'last_error_at', '{timestamp with time zone}'),
  (12, 'finished_at', '{timestamp with time zone}'),
  (13, 'headers', '{jsonb,json}')),
home as (
  select c.oid from pg_class c
   where c.relname = 'outbox_event'
     and c.relnamespace = coalesce((select relnamespace from pg_class where oid = to_regclass('outbox_event')),
                                   (select oid from pg_namespace where nspname = current_schema())))
select format('column outbox_event.%s is %s, must be %s', a.attname, format_type(a.atttypid, a.atttypmod), types[1])
  from wanted w cross join home join pg_attribute a on a.attrelid = home.oid and a.attname = w.name and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
 where format_type(case when cardinality(types) > 1 then coalesce(nullif(t.typbasetype, 0), t.oid) else t.oid end, null) <> all (types)
    or w.name = 'last_error' and a.atttypmod <> -1
 order by place
