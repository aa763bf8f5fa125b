-- Called by store/stats.rs before statistics_backlog.sql: the events that a lease names, and
-- whether that is one of those that cannot be read. See outbox_leases_1 for why this reads few
-- rows.
select unnest(event_ids), worker like 'unreadable/%' from outbox_leases_1()
