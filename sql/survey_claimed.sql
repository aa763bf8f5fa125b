-- Called by store/stats.rs before survey_backlog.sql: the events that somebody holds. See outbox_leases_1 for why this reads few rows.
select unnest(event_ids) from outbox_leases_1()
