-- Called by store/skip.rs after a look that took too long. The function reads a part of
-- outbox_event_due from the position on; see schema.sql.
select reached_at, reached_id, is_due, now() from outbox_skip_1($1, $2, $3, $4)
