-- Called by store/inspect.rs: connections of workers to this database that this role may see. Workers that are idle hold no lease but keep
-- their connections.
select count(distinct application_name) from pg_stat_activity
 where application_name like 'dispatchbox worker-%' and datname = current_database()
