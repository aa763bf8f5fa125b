-- Called by store/stats.rs where statistics_dead.sql meets an event type that cannot be read: how
-- many of the newest $1 dead events there are, under no type. By outbox_event_dead alone.
select '', count(*) from (select from outbox_event where status = 'dead' order by created_at desc, id desc limit $1) dead having count(*) > 0
