-- Called by store/claim.rs for each claim. The function walks outbox_event_due from the position on; see schema.sql.
select token, id, aggregate_type, aggregate_id, event_type, payload, attempts, next_run_at, created_at, headers, now()
  from outbox_claim_1($1, $2, make_interval(secs => $3), $4, $5, $6, $7, $8)
