-- A check of `dispatchbox doctor`: events that are never due. Those without a time, or with an
-- endless one, are found by the index of what is due. No index leads to a status that this program
-- does not know: where no constraint forbids one, some 2,000 pages of the table are looked at, which
-- is all of a small one.
select 'error', format('%s event(s) have no time at which they are due, such as %s', count(*), min(id)),
       format('UPDATE outbox_event SET next_run_at = now() WHERE id = %s, if it is to be delivered', min(id)),
       json_build_object('events', count(*), 'example', min(id))::text
  from (select id from outbox_event where status in ('pending', 'retry') and next_run_at is null limit 1000) found having count(*) > 0
union all
select 'warning', format('%s event(s) are due at infinity, such as %s', count(*), min(id)),
       format('UPDATE outbox_event SET next_run_at = now() WHERE id = %s, if it is to be delivered', min(id)),
       json_build_object('events', count(*), 'example', min(id))::text
  from (select id from outbox_event where status in ('pending', 'retry') and next_run_at = 'infinity' limit 1000) found having count(*) > 0
union all
select 'error', format('events such as %s have the status %L, which no daemon takes', min(id), status),
       format('UPDATE outbox_event SET status = ''pending'' WHERE id = %s, if it is to be delivered; pending, retry, done and dead are known', min(id)),
       json_build_object('status', status, 'example', min(id))::text
  from (select id, left(status, 60) as status
          from outbox_event tablesample system (least(100, 100.0 * 2000 / greatest((select relpages from pg_class where oid = to_regclass('outbox_event')), 1)))
         where (status is null or status not in ('pending', 'retry', 'done', 'dead'))
           and not exists (select from pg_constraint
                            where conrelid = to_regclass('outbox_event') and conname = 'outbox_event_status_known' and convalidated)
         limit 1000) odd
 group by status
union all
select 'ok', format('none found; for a status that no daemon takes, 2000 of %s pages were looked at', relpages), null,
       json_build_object('pages', relpages, 'pages_looked_at', 2000)::text
  from pg_class
 where oid = to_regclass('outbox_event') and relpages > 2000
   and not exists (select from pg_constraint
                    where conrelid = pg_class.oid and conname = 'outbox_event_status_known' and convalidated)
