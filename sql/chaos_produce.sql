-- Writes an event of each type. Called by the producers of `dispatchbox chaos`.
insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)
select 'chaos', u.n::text, u.event_type, '{}' from unnest($1::text[]) with ordinality as u (event_type, n)
returning id
