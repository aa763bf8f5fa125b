-- Called by store/stats.rs: the newest $1 dead events by type.
--
-- Walks outbox_event_dead and reads each row for its type. Measured with 100,000 dead events, each
-- on a page of its own, among 5 million rows: 0.15 to 0.2 s, 0.8 s the first time. An index on the
-- type would make that 15 ms once vacuum has been there, and was refused: its entries end at 2,700
-- bytes, and a longer event type could then never be settled as dead.
select coalesce(event_type, ''), count(*)
  from (select event_type from outbox_event where status = 'dead' order by created_at desc, id desc limit $1) dead
 group by 1 order by 2 desc, 1
