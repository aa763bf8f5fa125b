-- A check of `dispatchbox doctor`: rows of other tables that keep done events where they are.
select 'warning', format('%s refers to outbox_event (foreign key %I), so an event stays in the table while a row there names it', conrelid::regclass, conname),
       format('if events are to be archived: ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
       json_build_object('table', conrelid::regclass::text, 'constraint', conname)::text
  from pg_constraint
 where contype = 'f' and confrelid = to_regclass('outbox_event') and confdeltype in ('a', 'r') and conparentid = 0
 order by conname limit 5
