-- A check of `dispatchbox doctor`: settings with which a crash of the server loses what was
-- committed, so that no outbox can keep its word.
select case name when 'fsync' then 'error' else 'warning' end,
       format('%s is off: %s', name, case name when 'fsync' then 'a crash of the host can destroy the database'
                                               when 'full_page_writes' then 'a crash of the host can damage pages'
                                               else 'a crash of the server loses the commits of the last moments, events and outcomes among them' end),
       format('%s = on, for the server, the database and the role', name), json_build_object('setting', name)::text
  from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off'
