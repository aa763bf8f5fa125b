-- Called by store/stats.rs: events that wait for their time, for another attempt most of them,
-- counted up to $1, and in how many seconds the first of them is due. An index-only scan of
-- outbox_event_due from now on, which ends at the limit: as dear as statistics_backlog.sql at most,
-- and without dead entries in its way, since what is not due was not settled. An infinite
-- next_run_at never is.
select count(*), extract(epoch from min(next_run_at) filter (where isfinite(next_run_at)) - now())::float8
  from (select next_run_at from outbox_event
         where status in ('pending', 'retry') and next_run_at > now()
         order by next_run_at, id limit $1) waiting
