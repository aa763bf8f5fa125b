-- Called by store/publish.rs for `dispatchbox publish`. The casts are the server's, so that what it
-- stores is what any other producer would have stored.
insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, headers, next_run_at)
values ($1::text, $2::text, $3::text, $4::text::jsonb, $5::text::jsonb, now() + make_interval(secs => $6))
returning id::bigint
