-- A check of `dispatchbox doctor`: outboxes in other schemas. A producer with another search_path
-- writes into another one, where no daemon may look.
select 'warning', format('there is an outbox in the schema %I, too; this connection uses that in %I', n.nspname, current_schema()),
       'if it is a leftover, drop it; if a producer means it, give both the same search_path',
       json_build_object('schema', n.nspname)::text
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relname = 'outbox_event' and c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|dispatchbox_bench_)' and c.oid <> to_regclass('outbox_event')
   and 3 = (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attname in ('event_type', 'status', 'next_run_at') and not a.attisdropped)
 order by n.nspname limit 5
