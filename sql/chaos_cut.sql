-- Ends all connections to the database but this one. Called by `dispatchbox chaos`.
select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
