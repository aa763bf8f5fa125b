-- Called by store/schema/mod.rs: names what this program cannot work with in tables that the
-- application made by itself: a claim or a write would fail, or events would be lost. Texts may
-- have a length and a domain, except where we write what is longer. The outcome of an event is
-- written by its id alone, so ids have to be unique by an index of their own. Rules break
-- statements that return rows or stand in a WITH, and a table that publishes updates takes none
-- without a replica identity. Types are compared without the quotes that they have under
-- quote_all_identifiers.
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
-- What else a table of that name has to have, and no migration adds.
others (relation, name, type) as (values
  ('outbox_event_archive', 'id', 'bigint'), ('outbox_event_archive', 'aggregate_type', 'text'), ('outbox_event_archive', 'aggregate_id', 'text'),
  ('outbox_event_archive', 'event_type', 'text'), ('outbox_event_archive', 'payload', 'jsonb'), ('outbox_event_archive', 'status', 'text'),
  ('outbox_event_archive', 'attempts', 'integer'), ('outbox_event_archive', 'next_run_at', 'timestamp with time zone'),
  ('outbox_event_archive', 'created_at', 'timestamp with time zone'), ('outbox_lease', 'token', 'bigint'), ('outbox_lease', 'worker', 'text'),
  ('outbox_lease', 'expires_at', 'timestamp with time zone'), ('outbox_lease', 'event_ids', 'bigint[]')),
tables as (
  select c.oid, c.relname, c.relkind, c.relnamespace, c.relreplident from pg_class c
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
-- The checks of the application on the status, on the column itself or on its domain, and those of
-- our words that each refuses.
checks as (
  select c.conname, case when c.conrelid <> 0 then pg_get_expr(c.conbin, c.conrelid) else substring(pg_get_constraintdef(c.oid) from '^CHECK (\(.*\))') end as condition
    from columns s
    join pg_constraint c
      on c.contype = 'c' and (c.conrelid = s.attrelid and c.conkey = array[s.attnum]
                              or c.contypid in (select type from bases b where b.name = 'status'))
   where s.name = 'status' and c.conname <> 'outbox_event_status_known'),
-- query_to_xml is what runs an expression that is known only here. It needs no libxml.
refused (conname, words) as (
  select conname, substring(query_to_xml(format(
           $$select string_agg(status, ', ') as words from (select status, status as value from unnest('{pending,retry,done,dead}'::text[]) status) w where not %s$$, condition),
           false, true, '')::text from '<words>(.*)</words>')
    from checks),
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
  select 20, 0, format('column %s.%s is missing, must be %s', o.relation, o.name, o.type)
    from others o join tables t on t.relname = o.relation and t.relkind in ('r', 'p')
   where not exists (select from pg_attribute a where a.attrelid = t.oid and a.attname = o.name and not a.attisdropped)
  union all
  select place, 1, format('column outbox_event.%s is %s, must be %s', name, replace(format_type(atttypid, atttypmod), '"', ''),
                          case types[1] when 'jsonb' then 'jsonb or json' else types[1] end)
                   || case when name = 'id' and atttypid in ('int4'::regtype, 'int2'::regtype)
                           then ': alter table outbox_event alter column id type bigint' || coalesce(narrow, '') else '' end
    from columns
    -- The sequence of an identity column is altered with it, that of a default is not.
    left join lateral (select format('; alter sequence %s as bigint', s.seqrelid::regclass) as narrow
                         from pg_depend d join pg_sequence s on s.seqrelid = d.objid
                        where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = attrelid
                          and d.refobjsubid = attnum and d.deptype = 'a' and s.seqtypid <> 'int8'::regtype limit 1) own on true
   where not exists (select from bases b where b.name = columns.name and replace(format_type(b.type, null), '"', '') = any (types))
      or name = 'last_error' and atttypmod <> -1
      -- The length, as PostgreSQL keeps it, is 4 more.
      or name = 'status' and atttypmod between 4 and length('pending') + 3
  union all
  select 6, 2, format('column outbox_event.status may not become %s by the constraint %I, must accept pending, retry, done and dead', words, conname)
    from refused where words <> ''
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
                        and i.indnkeyatts = 1 and i.indkey[0] = attnum)
  union all
  -- A rule that is disabled, or only for replicas, changes nothing. A rule for the inserts of
  -- producers is theirs.
  select 30, 0, format('rule %I on %s changes %s: drop rule %I on %s (a trigger can do the same)', r.rulename, t.relname,
                       case r.ev_type when '2' then 'updates' when '3' then 'inserts' else 'deletes' end, r.rulename, t.relname)
    from tables t join pg_rewrite r on r.ev_class = t.oid and r.ev_enabled in ('O', 'A')
   where t.relkind = 'r' and (t.relname in ('outbox_event', 'outbox_lease') and r.ev_type in ('2', '4')
                              or t.relname = 'outbox_lease' and r.ev_type = '3')
  union all
  select 31, 0, format('table %s publishes updates or deletes and has no replica identity, must have one: alter table %s replica identity %s',
                       t.relname, t.relname, coalesce('using index ' || fit.name, 'full'))
    from tables t
    -- What may be the identity: unique at once, for all rows, over plain columns that are not null.
    left join lateral (select format('%I', x.relname) as name
                         from pg_index i join pg_class x on x.oid = i.indexrelid
                        where i.indrelid = t.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
                          and not exists (select from pg_attribute a
                                           where a.attrelid = t.oid and not a.attnotnull and a.attnum = any (i.indkey[0:i.indnkeyatts - 1]))
                        order by i.indnkeyatts, x.relname limit 1) fit on true
   where t.relkind = 'r' and t.relname in ('outbox_event', 'outbox_lease') and t.relreplident <> 'f'
     -- The publications are looked at only where it matters: there may be thousands of tables in
     -- one.
     and case when exists (select from pg_index i
                            where i.indrelid = t.oid and i.indisvalid and i.indimmediate
                              and (t.relreplident = 'd' and i.indisprimary or t.relreplident = 'i' and i.indisreplident)) then false
              else exists (select from pg_publication p join pg_publication_tables pt on pt.pubname = p.pubname
                            where (p.pubupdate or p.pubdelete) and pt.tablename = t.relname
                              and pt.schemaname = (select nspname from pg_namespace n where n.oid = t.relnamespace)) end)
select flaw from flaws order by place, part
