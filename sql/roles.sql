-- Roles with no more than they need, for psql: psql -d ... -f sql/roles.sql, as the owner of the
-- tables, who may create roles.
--
-- Apply it after schema.sql or `dispatchbox migrate`, and again after each later one, which may
-- bring functions. It may be repeated, and takes away only the privileges of PUBLIC on the
-- functions of the outbox. These roles cannot log in; they are granted to roles that can:
--
--   create role dispatchbox_on_vm1 login password '...' in role dispatchbox_daemon;
--   grant dispatchbox_producer to shop;
--
--   dispatchbox_daemon     `dispatchbox run`, `dead-events`, `explain` and `status`
--   dispatchbox_producer   applications and `publish`: insert events, and see no other's
--   dispatchbox_archivist  calls archive_outbox_events or outbox_archive_1, from cron for example
--
-- `dispatchbox migrate` belongs to the owner of the tables. The daemon looks at the start whether
-- it may do what it has to (sql/privileges.sql), and ends with exit code 78 when it may not.
--
-- All of it is done or nothing: one transaction, which psql leaves at its first error. Read in by
-- \i, an error leaves that transaction to be ended by `rollback`, and ON_ERROR_STOP stays on.

\set ON_ERROR_STOP on
begin;

-- What would fail further down, or only warn there and grant nothing, is named first.
do $$
declare
  home   text := (select relnamespace::regnamespace from pg_class where oid = to_regclass('outbox_event'));
  others text;
  lacks  text;
begin
  if home is null then
    select string_agg(n.nspname, ', ' order by n.nspname) into others
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relname = 'outbox_event' and c.relkind in ('r', 'p');
    raise exception 'the search_path (%) reaches no table outbox_event', current_setting('search_path')
      using hint = coalesce('It stands in the schema ' || others || ': name that in the environment, PGOPTIONS=-csearch_path=...',
                            'Apply sql/schema.sql or `dispatchbox migrate` first, and look whether this is the right database.');
  end if;
  -- Everything below is in the schema of the table, whatever the search_path says first.
  perform set_config('search_path', home || ', pg_temp', true);
  select string_agg(name, ', ' order by name) into lacks
    from unnest('{outbox_event_archive,outbox_lease}'::text[]) name where to_regclass(name) is null;
  if lacks is not null then
    raise exception 'the schema % lacks %', home, lacks using hint = 'Apply sql/schema.sql or `dispatchbox migrate` first.';
  end if;
  -- Those that are granted below.
  select string_agg(relation || '.' || name, ', ' order by relation, name) into lacks
    from (values ('outbox_event', '{id,aggregate_type,aggregate_id,event_type,payload,status,attempts,next_run_at,last_error,last_error_at,finished_at,headers}'::text[]),
                 ('outbox_event_archive', '{id,status,attempts,archived_at,last_error}'),
                 ('outbox_lease', '{event_ids,expires_at}')) granted (relation, names), unnest(names) name
   where not exists (select from pg_attribute where attrelid = to_regclass(relation) and attname = name and not attisdropped);
  if lacks is not null then
    raise exception 'the schema % lacks the columns %', home, lacks using hint = 'Apply sql/schema.sql or `dispatchbox migrate` first.';
  end if;
  select string_agg(distinct pg_get_userbyid(owner), ', ') into lacks
    from (select relowner as owner from pg_class
           where oid in (to_regclass('outbox_event'), to_regclass('outbox_event_archive'), to_regclass('outbox_lease'))
          union all
          select proowner from pg_proc where pronamespace = (select oid from pg_namespace where nspname = current_schema()) and proname like '%outbox\_%') owned
   where not pg_has_role(owner, 'USAGE');
  if lacks is not null then
    raise exception 'tables or functions of the outbox belong to %, whose privileges % does not have', lacks, current_user
      using hint = 'Run this as their owner.';
  end if;
  select string_agg(name, ', ' order by name) into lacks
    from unnest('{dispatchbox_daemon,dispatchbox_producer,dispatchbox_archivist}'::text[]) name
   where not exists (select from pg_roles where rolname = name)
     and not exists (select from pg_roles where rolname = current_user and (rolcreaterole or rolsuper));
  if lacks is not null then
    raise exception '% may not create the roles %', current_user, lacks
      using hint = 'Let a role that may (CREATEROLE) create them, each as: create role NAME nologin. Then run this again.';
  end if;
end $$;

do $$
declare
  home    text := current_schema();
  role    text;
  func    text;
  granted regprocedure;
begin
  foreach role in array '{dispatchbox_daemon,dispatchbox_producer,dispatchbox_archivist}'::text[] loop
    if not exists (select from pg_roles where rolname = role) then
      execute format('create role %I nologin', role);
    end if;
    execute format('grant usage on schema %I to %I', home, role);
  end loop;

  -- The caller of a function needs the privileges on the tables anyway. Without this revoke the
  -- call of another role would only fail later.
  for granted in select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                  where n.nspname = home and p.proname like '%outbox\_%' loop
    execute format('revoke execute on routine %s from public', granted);
  end loop;
  for role, func in values ('dispatchbox_daemon', 'outbox_leases_1'),  ('dispatchbox_daemon', 'outbox_claim_2'),
                           ('dispatchbox_daemon', 'outbox_settle_1'),  ('dispatchbox_daemon', 'outbox_renew_1'),
                           ('dispatchbox_daemon', 'outbox_settle_each_1'), ('dispatchbox_daemon', 'outbox_read_1'),
                           ('dispatchbox_daemon', 'outbox_try_read_1'), ('dispatchbox_daemon', 'outbox_skip_1'),
                           ('dispatchbox_daemon', 'outbox_pass_over_1'), ('dispatchbox_daemon', 'outbox_look_again_1'),
                           ('dispatchbox_daemon', 'outbox_requeue_1'), ('dispatchbox_daemon', 'outbox_requeue_2'),
                           ('dispatchbox_daemon', 'outbox_discard_1'), ('dispatchbox_daemon', 'outbox_discard_2'),
                           ('dispatchbox_daemon', 'outbox_move_1'),
                           ('dispatchbox_daemon', 'outbox_warn_1'), ('dispatchbox_archivist', 'outbox_warn_1'),
                           ('dispatchbox_archivist', 'archive_outbox_events'), ('dispatchbox_archivist', 'outbox_archive_1'),
                           ('dispatchbox_archivist', 'outbox_archive_part_1'), ('dispatchbox_archivist', 'outbox_move_1'),
                           ('dispatchbox_archivist', 'outbox_leases_1') loop
    for granted in select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = home and p.proname = func loop
      execute format('grant execute on routine %s to %I', granted, role);
    end loop;
  end loop;

  -- A table that has its ids from an identity column has no sequence that a role would need a
  -- privilege for.
  if pg_get_serial_sequence('outbox_event', 'id') is not null then
    execute format('grant usage on sequence %s to dispatchbox_producer', pg_get_serial_sequence('outbox_event', 'id'));
  end if;
end $$;

-- What an event is stays as its producer wrote it: the daemon changes what became of it, and
-- nothing else.
grant select on outbox_event to dispatchbox_daemon;
grant update (status, attempts, next_run_at, last_error, last_error_at, finished_at) on outbox_event to dispatchbox_daemon;
grant select, insert, update (expires_at, event_ids), delete on outbox_lease to dispatchbox_daemon;
-- For discarding alone: without these two the daemon works, and a discard is refused.
grant delete on outbox_event to dispatchbox_daemon;
grant select (id), insert on outbox_event_archive to dispatchbox_daemon;
-- For `explain`, of an event that is there.
grant select (status, attempts, archived_at, last_error) on outbox_event_archive to dispatchbox_daemon;

-- Status and attempts are not theirs to choose. The id is what an insert returns.
grant insert (aggregate_type, aggregate_id, event_type, payload, headers, next_run_at), select (id) on outbox_event to dispatchbox_producer;

grant select, delete on outbox_event to dispatchbox_archivist;
grant select (id), insert on outbox_event_archive to dispatchbox_archivist;
grant select on outbox_lease to dispatchbox_archivist;

commit;
