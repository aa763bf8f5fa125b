-- Called by store/inspect.rs for an event that is not in the table (any more). By primary key.
select status, attempts, archived_at, last_error from outbox_event_archive where id = $1
