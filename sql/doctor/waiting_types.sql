-- Called by cli/commands/doctor: the event types among the first 10,000 events that wait to be
-- delivered, in the order in which they are due, and how many there are of each.
select coalesce(event_type, ''), count(*)
  from (select event_type from outbox_event where status in ('pending', 'retry') order by next_run_at, id limit 10000) waiting
 group by 1 order by 2 desc, 1 limit $1
