-- Called by store/unreadable.rs when a lease of events that could not be read is over; see
-- schema.sql.
select id, outcome, looks, code, cause from outbox_look_again_1($1)
