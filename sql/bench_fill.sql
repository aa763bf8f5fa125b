-- Inserts $1 due events. Called by: `dispatchbox bench`, before each run. Ids and due times rise
-- together, as they do in real tables.
INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload)
SELECT 'order', 'order-' || i % 10000, 'bench.event',
       jsonb_build_object('order_id', 'order-' || i % 10000, 'total', 19.90, 'currency', 'EUR', 'items', 3)
FROM generate_series(1, $1::bigint) i
