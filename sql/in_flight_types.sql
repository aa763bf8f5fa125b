-- Called by store/inspect.rs: how many claimed events there are of each type, done ones left out.
-- By primary key from the leases.
select coalesce(e.event_type, ''), count(*)
  from (select unnest(event_ids) as id from outbox_leases_1() where worker not like 'unreadable/%') l join outbox_event e on e.id = l.id
 where e.status in ('pending', 'retry')
 group by 1 order by 2 desc, 1 limit $1
