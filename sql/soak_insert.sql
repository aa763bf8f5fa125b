-- Inserts $1 due events of the type $2. Called by: the producers of `dispatchbox bench --soak`, some
-- hundred times a second.
INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload)
SELECT 'order', 'order-' || i, $2,
       jsonb_build_object('order_id', 'order-' || i, 'total', 19.90, 'currency', 'EUR', 'items', 3)
FROM generate_series(1, $1::bigint) i
