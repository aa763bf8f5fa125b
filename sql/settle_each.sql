-- Called by store/settle.rs with a batch that could not be written as a whole. Like settle.sql, but
-- one row after the other; see schema.sql.
select id, written, code, cause from outbox_settle_each_1($1, $2, $3, $4, $5, $6, $7, $8)
