-- Called by store/dead.rs. Counts the dead letters of each event type, the most frequent first.
-- Reads every dead row once.
select coalesce(event_type, ''), count(*)
  from outbox_event
 where status = 'dead'
   and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type collate "C" = $2)
   and ($7::text is null or starts_with(coalesce(event_type, '') collate "C", $7))
   and ($3::text is null or position($3 in last_error) > 0)
   and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
 group by 1 order by 2 desc, 1 limit $6
