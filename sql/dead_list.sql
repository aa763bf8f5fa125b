-- Called by store/dead.rs for the ids of one page of the dead letters, newest first; dead_show.sql
-- reads them. Walks outbox_event_dead from its front and stops after offset and limit; each filter
-- that is null is none. `position` and not LIKE: the text sought is no pattern.
select id
  from outbox_event
 where status = 'dead'
   and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type collate "C" = $2)
   and ($8::text is null or starts_with(coalesce(event_type, '') collate "C", $8))
   and ($3::text is null or position($3 in last_error) > 0)
   and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
 order by created_at desc, id desc limit $6 offset $7
