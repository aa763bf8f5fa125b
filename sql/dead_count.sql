-- Called by store/dead.rs. Counts all dead letters that a filter lets pass; without one by
-- outbox_event_dead alone.
select count(*)
  from outbox_event
 where status = 'dead'
   and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type collate "C" = $2)
   and ($6::text is null or starts_with(coalesce(event_type, '') collate "C", $6))
   and ($3::text is null or position($3 in last_error) > 0)
   and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
