-- Called by store/dead.rs for dead letters by their ids, in the order of the ids. By primary key,
-- whatever the statistics say of outbox_event_dead. Stops after $2 bytes of payloads and headers as
-- they are stored, but not before the first, so that a client that reads many large ones need not
-- hold a thousand at a time. The sizes are found without reading the values.
select e.id, coalesce(e.aggregate_type, ''), coalesce(e.aggregate_id, ''), coalesce(e.event_type, ''), coalesce(e.payload::text, 'null'), e.status,
       coalesce(e.attempts, 0), e.next_run_at, e.created_at, e.last_error, e.last_error_at, e.finished_at, e.headers::text
  from (select id, place, sum(bytes) over (order by place) - bytes as bytes_before
          from (select e.id, u.place, coalesce(pg_column_size(e.payload), 0) + coalesce(pg_column_size(e.headers), 0) as bytes
                  from unnest($1::bigint[]) with ordinality as u (id, place) join outbox_event e on e.id = u.id
                 where e.status || '' = 'dead') sized) wanted
  join outbox_event e on e.id = wanted.id
 where wanted.bytes_before < $2::bigint and e.status || '' = 'dead'
 order by wanted.place
