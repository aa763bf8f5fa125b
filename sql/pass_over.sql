-- Called by store/unreadable.rs after a claim that failed because of a row. The function walks
-- outbox_event_due from the position on; see schema.sql.
select id, code, cause from outbox_pass_over_1($1, $2, $3, $4)
