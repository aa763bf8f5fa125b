-- A check of `dispatchbox doctor`: events that cannot be read, which the daemons have set aside.
select 'error', format('%s event(s) cannot be read: %s', count(*), string_agg(id::text, ', ' order by id) filter (where place <= 10)),
       'dispatchbox explain ID shows why',
       json_build_object('events', count(*), 'example', min(id))::text
  from (select id, row_number() over (order by id) as place
          from (select unnest(event_ids) as id from outbox_leases_1() where worker like 'unreadable/%') ids) numbered
having count(*) > 0
