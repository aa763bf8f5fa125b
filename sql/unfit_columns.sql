-- Called by store/schema/mod.rs: names what this program cannot work with in tables that the application made by itself: a claim or a write
-- would fail, or events would be lost. Texts may have a length and a domain, except where we write what is longer. The outcome of an event
-- is written by its id alone, so ids have to be unique by an index of their own.
with recursive wanted (place, name, types, is_written) as (values
  (1, 'id', '{bigint}'::text[], false),
  (2, 'aggregate_type', '{text,character varying}', false),
  (3, 'aggregate_id', '{text,character varying}', false),
  (4, 'event_type', '{text,character varying}', false),
  (5, 'payload', '{jsonb,json}', false),
  (6, 'status', '{text,character varying}', true),
  (7, 'attempts', '{integer,smallint}', true),
  (8, 'next_run_at', '{timestamp with time zone}', true),
  (9, 'created_at', '{timestamp with time zone}', false),
  (10, 'last_error', '{text,character varying}', true),
  (11, 'last_error_at', '{timestamp with time zone}', true),
  (12, 'finished_at', '{timestamp with time zone}', true),
  (13, 'headers', '{jsonb,json}', false)),
tables as (
  select c.oid, c.relname, c.relkind from pg_class c
   where c.relname in ('outbox_event', 'outbox_event_archive', 'outbox_lease')
     and c.relnamespace = coalesce((select relnamespace from pg_class where oid = to_regclass('outbox_event')),
                                   (select oid from pg_namespace where nspname = current_schema()))),
home as (select oid from tables where relname = 'outbox_event' and relkind = 'r'),
columns as (
  select w.*, a.attrelid, a.attnum, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated <> '' or a.attidentity = 'a' as is_generated
    from wanted w cross join home join pg_attribute a on a.attrelid = home.oid and a.attname = w.name and not a.attisdropped),
-- A domain may stand on another one.
bases (name, type) as (
  select name, atttypid from columns
  union all
  select b.name, t.typbasetype from bases b join pg_type t on t.oid = b.type and t.typbasetype <> 0 join wanted w on w.name = b.name
   where cardinality(w.types) > 1),
flaws (place, part, flaw) as (
  select 0, 0, format('table %s is %s, must be an ordinary table', relname,
                      case relkind when 'p' then 'partitioned' when 'v' then 'a view' when 'm' then 'a materialized view'
                                   when 'f' then 'a foreign table' else 'something else' end)
    from tables where relkind <> 'r' and not (relname = 'outbox_event_archive' and relkind = 'p')
  union all
  select 0, 1, format('table outbox_event has the child table %s, must have none', min(inhrelid::regclass::text))
    from home join pg_inherits on inhparent = oid having count(*) > 0
  union all
  select w.place, 0, format('column outbox_event.%s is missing, must be %s', w.name, w.types[1])
    from wanted w cross join home where w.place < 10 and w.name not in (select name from columns)
  union all
  select place, 1, format('column outbox_event.%s is %s, must be %s', name, format_type(atttypid, atttypmod), types[1])
    from columns
   where not exists (select from bases b where b.name = columns.name and format_type(b.type, null) = any (types))
      or name = 'last_error' and atttypmod <> -1
      -- The length, as PostgreSQL keeps it, is 4 more.
      or name = 'status' and atttypmod between 4 and length('pending') + 3
  union all
  select place, 2, format('column outbox_event.%s is generated, must be one that can be written', name)
    from columns where is_written and is_generated
  union all
  select place, 3, format('column outbox_event.%s is not null, must accept null', name) from columns where name = 'finished_at' and attnotnull
  union all
  select place, 4, 'column outbox_event.id accepts null, must be not null' from columns where name = 'id' and not attnotnull
  union all
  select place, 5, 'column outbox_event.id has no unique index of its own, must have one: create unique index concurrently on outbox_event (id)'
    from columns
   where name = 'id'
     and not exists (select from pg_index i
                      where i.indrelid = attrelid and i.indisunique and i.indisvalid and i.indpred is null
                        and i.indnkeyatts = 1 and i.indkey[0] = attnum))
select flaw from flaws order by place, part
