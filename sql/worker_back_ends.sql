-- Called by store/inspect.rs: connections of workers to this database that this role may see.
-- Workers that are idle hold no lease but keep their connections. Before our name the connection
-- description may have put another.
select count(distinct substring(application_name from 'dispatchbox worker-.*$')) from pg_stat_activity
 where application_name like '%dispatchbox worker-%' and datname = current_database()
