-- Called by store/dead.rs for dead letters by their ids, in the order of the ids. By primary key. Stops after $2 bytes of payloads as they are
-- stored, but not before the first: an export must not hold a thousand large ones at a time.
select e.id, coalesce(e.aggregate_type, ''), coalesce(e.aggregate_id, ''), coalesce(e.event_type, ''), coalesce(e.payload::text, 'null'), e.status,
       coalesce(e.attempts, 0), e.next_run_at, e.created_at, e.last_error, e.last_error_at, e.finished_at, e.headers::text
  from (select e.id, u.place, sum(coalesce(pg_column_size(e.payload), 0)) over (order by u.place) - coalesce(pg_column_size(e.payload), 0) as bytes_before
          from unnest($1::bigint[]) with ordinality as u (id, place) join outbox_event e on e.id = u.id
         where e.status = 'dead') wanted
  join outbox_event e on e.id = wanted.id
 where wanted.bytes_before < $2::bigint and e.status = 'dead'
 order by wanted.place
