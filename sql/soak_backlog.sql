-- Counts the due events that are neither done nor dead, those in workers' hands included. Called by:
-- `dispatchbox bench --soak`, every five seconds. The reader's snapshot keeps the entries of done
-- events in the index, so this costs some tenths of a second at the end of a minute.
SELECT count(*) FROM outbox_event WHERE status IN ('pending', 'retry') AND next_run_at <= now()
