-- Reads what became of all events. Called by `dispatchbox chaos` when the daemons have ended.
select id, event_type, status, attempts from outbox_event order by id
