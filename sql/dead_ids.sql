-- Called by store/dead.rs for the next ids behind a position in the order of the list, so that work
-- on very many dead letters goes in batches and none is met twice. Two walks of outbox_event_dead,
-- since no row compares with a null: at first what has no created_at (only in tables of another
-- origin), in which $6 is the position, then behind ($7, $8).
select id, created_at from (
  (select id, created_at from outbox_event
    where status = 'dead' and created_at is null and id < $6
      and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type collate "C" = $2)
      and ($10::text is null or starts_with(coalesce(event_type, '') collate "C", $10))
      and ($3::text is null or position($3 in last_error) > 0)
      and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
    order by created_at desc, id desc limit $9)
  union all
  (select id, created_at from outbox_event
    where status = 'dead' and (created_at, id) < ($7, $8)
      and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type collate "C" = $2)
      and ($10::text is null or starts_with(coalesce(event_type, '') collate "C", $10))
      and ($3::text is null or position($3 in last_error) > 0)
      and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
    order by created_at desc, id desc limit $9)) dead
 order by created_at desc, id desc limit $9
