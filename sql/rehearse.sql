-- Called by store/readiness.rs before the start and for /ready: does on no row what claiming,
-- settling and renewing do on many. A missing privilege, a lock on a table or a server that only
-- reads makes this statement fail as it would make those fail. Plan: each part is a Result with
-- "One-Time Filter: false", so nothing is read, nothing written, and no transaction id is used up.
with claimed as (select from outbox_event where false for no key update),
     settled as (update outbox_event set status = status, attempts = attempts, next_run_at = next_run_at, last_error = last_error,
                                         last_error_at = last_error_at, finished_at = finished_at where false),
     leased  as (insert into outbox_lease (token, worker, expires_at, event_ids) select 0, '', now(), '{}'::bigint[] where false),
     renewed as (update outbox_lease set expires_at = expires_at, event_ids = event_ids where false),
     ended   as (delete from outbox_lease where false)
select
