-- Called by store/dead.rs for one page of the dead letters, newest first. Walks outbox_event_dead from its front and stops after offset and
-- limit; each filter that is null is none. `position` and not LIKE: the text sought is no pattern. The page ends early behind $8 bytes of
-- payloads as they are stored, but not before its first event; the sizes are found without reading a payload.
select e.id, coalesce(e.aggregate_type, ''), coalesce(e.aggregate_id, ''), coalesce(e.event_type, ''), coalesce(e.payload::text, 'null'), e.status,
       coalesce(e.attempts, 0), e.next_run_at, e.created_at, e.last_error, e.last_error_at, e.finished_at, e.headers::text
  from (select id, row_number() over newest_first as place, sum(bytes) over newest_first - bytes as bytes_before
          from (select id, created_at, coalesce(pg_column_size(payload), 0) as bytes
                  from outbox_event
                 where status = 'dead'
                   and ($1::text is null or aggregate_type = $1) and ($2::text is null or event_type = $2)
                   and ($3::text is null or position($3 in last_error) > 0)
                   and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
                 order by created_at desc, id desc limit $6 offset $7) page
        window newest_first as (order by created_at desc, id desc)) wanted
  join outbox_event e on e.id = wanted.id
 where wanted.bytes_before < $8::bigint and e.status = 'dead'
 order by wanted.place
