-- A check of `dispatchbox doctor`: rights that a daemon does not need. Whoever takes over the
-- daemon's host gets them.
select 'warning', format('the role %I %s', current_user, what), 'give the daemon a role of its own: sql/roles.sql makes dispatchbox_daemon',
       json_build_object('role', current_user)::text
  from (select 1 as place, 'is a superuser' as what from pg_roles where rolname = current_user and rolsuper
        union all
        select 2, 'may create roles or databases' from pg_roles where rolname = current_user and not rolsuper and (rolcreaterole or rolcreatedb)
        union all
        select 3, 'is not bound by row-level security' from pg_roles where rolname = current_user and not rolsuper and rolbypassrls
        union all
        select 4, 'owns the table outbox_event, and may change and drop it'
          from pg_class c join pg_roles r on r.rolname = current_user and not r.rolsuper
         where c.oid = to_regclass('outbox_event') and pg_has_role(c.relowner, 'USAGE')
        union all
        select 5, 'may ' || concat_ws(' and ', case when has_table_privilege(c.oid, 'INSERT') then 'write events of its own' end,
                                      case when has_table_privilege(c.oid, 'TRUNCATE') then 'empty the table outbox_event' end)
          from pg_class c join pg_roles r on r.rolname = current_user and not r.rolsuper
         where c.oid = to_regclass('outbox_event') and not pg_has_role(c.relowner, 'USAGE') and has_table_privilege(c.oid, 'INSERT, TRUNCATE')) found
 order by place limit 3
