-- Called by store/claim.rs for each claim. The function walks outbox_event_due from the position
-- on; see schema.sql.
select token, group_no, id, aggregate_type, aggregate_id, event_type, payload, attempts, next_run_at, created_at, headers, now()
  from outbox_claim_2($1, $2, $3, make_interval(secs => $4), $5, $6, $7, $8, $9, $10)
