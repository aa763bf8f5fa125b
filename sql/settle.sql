-- Called by store/settle.rs with a batch of outcomes. Leases and events are found by their primary
-- keys; see schema.sql. An event may come back twice, then true counts.
select id, written from outbox_settle_1($1, $2, $3, $4, $5, $6, $7, $8)
