-- The whole schema of Dispatchbox, for PostgreSQL 12 and newer.
--
-- Apply it with `psql -f schema.sql` or with `dispatchbox migrate`. Both may be repeated, both work
-- on a table that is in use already, and neither drops anything. On a large live table prefer
-- `migrate`: it builds indexes CONCURRENTLY and tries again what could not get its lock, where this
-- file, read by psql, holds up writers while an index is built.
--
-- Everything goes to the first schema of the search_path, and the functions look only there,
-- whatever the search_path of the caller is. So several outboxes can live in one database.
--
-- `migrate` reads this same file: a line `-- step: ...` says what the statement below it brings,
-- and a step is run where a part of that is missing. What stands before the first step and after
-- the last is for psql alone.

do $$ begin
  perform set_config('dispatchbox.search_path', current_setting('search_path'), false);
  perform set_config('dispatchbox.lock_timeout', current_setting('lock_timeout'), false);
  perform set_config('search_path', format('%I, pg_temp', current_schema()), false);
  -- Behind a statement that waits for its lock every producer waits, too; better to fail here and
  -- be applied again.
  perform set_config('lock_timeout', '5s', false);
end $$;

-- The first nine columns are those that producers know; they never change. A claimed event keeps
-- its status; the lease that names it is in outbox_lease. The check on the status catches a
-- producer's typing error, which would be an event that is never delivered; a table that exists
-- already does not get it, because other programs may use further words there.
-- step: table outbox_event (id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at)
create table if not exists outbox_event (
  id             bigserial primary key,
  aggregate_type text not null,
  aggregate_id   text not null,
  event_type     text not null,
  payload        jsonb not null,
  status         text not null default 'pending'
                 constraint outbox_event_status_known check (status in ('pending', 'retry', 'done', 'dead')),
  attempts       int not null default 0,
  next_run_at    timestamptz not null default now(),
  created_at     timestamptz not null default now()
);

-- One statement takes one lock. The columns are nullable and have no default, so no row is
-- rewritten, and producers need not know them.
-- step: columns outbox_event (last_error, last_error_at, finished_at, headers)
alter table outbox_event
  add column if not exists last_error    text,
  add column if not exists last_error_at timestamptz,
  add column if not exists finished_at   timestamptz,
  add column if not exists headers       jsonb;

-- Claims walk this index; its predicate must stay word for word that of outbox_claim_2. (Not
-- partial on (status, next_run_at) costs four times as much.)
-- step: index outbox_event_due
create index if not exists outbox_event_due on outbox_event (next_run_at, id) where status in ('pending', 'retry');

-- Lists the dead letters, newest first, without reading done events.
-- step: index outbox_event_dead
create index if not exists outbox_event_dead on outbox_event (created_at desc, id desc) where status = 'dead';

-- Retention moves done events here, and a discard dead ones. A new archive also gets the further
-- columns of the application, and for the payload the type that it has in outbox_event (json keeps
-- what jsonb refuses), so that an archived event is whole.
-- step: table outbox_event_archive (id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at)
do $$
declare
  source record;
begin
  if to_regclass('outbox_event_archive') is null then
    create table outbox_event_archive (
      id             bigint primary key,
      aggregate_type text not null,
      aggregate_id   text not null,
      event_type     text not null,
      payload        jsonb not null,
      status         text not null,
      attempts       int not null,
      next_run_at    timestamptz not null,
      created_at     timestamptz not null,
      archived_at    timestamptz not null default now()
    );
    for source in
      select e.attname as name, format_type(e.atttypid, e.atttypmod) as type, a.attname is null as is_further
        from pg_attribute e
        left join pg_attribute a on a.attrelid = 'outbox_event_archive'::regclass and a.attname = e.attname
       where e.attrelid = 'outbox_event'::regclass and e.attnum > 0 and not e.attisdropped order by e.attnum
    loop
      if source.is_further then
        execute format('alter table outbox_event_archive add column %I %s', source.name, source.type);
      elsif source.name = 'payload' then
        execute format('alter table outbox_event_archive alter column payload type %s', source.type);
      end if;
    end loop;
  end if;
end $$;

-- step: columns outbox_event_archive (archived_at, last_error, last_error_at, finished_at, headers)
alter table outbox_event_archive
  add column if not exists archived_at   timestamptz not null default now(),
  add column if not exists last_error    text,
  add column if not exists last_error_at timestamptz,
  add column if not exists finished_at   timestamptz,
  add column if not exists headers       jsonb;

-- step: index idx_outbox_archive_date
create index if not exists idx_outbox_archive_date on outbox_event_archive (archived_at);

-- One row per claim, written once and deleted once: that is all that claiming writes besides the
-- row locks. While the row stands, no other worker claims the events it names, expired or not; only
-- its worker, or a sweep of the expired lease, settles them. event_ids is stored plain: with at
-- most 900 ids a row fits into a page, and no value is ever moved out of line. Half-filled pages
-- leave room for the renewed version beside the old one. vacuum_truncate would lock the table each
-- time that it runs empty.
-- step: table outbox_lease (token, worker, expires_at, event_ids)
do $$ begin
  if to_regclass('outbox_lease') is null then
    create table outbox_lease (
      token      bigint primary key,    -- the id of the transaction that claimed: no other can write it
      worker     text not null,         -- unique per start of a worker; part of every fence
      expires_at timestamptz not null,
      event_ids  bigint[] not null
    ) with (fillfactor = 50, vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
            autovacuum_vacuum_cost_delay = 0);
    alter table outbox_lease alter worker set storage plain, alter event_ids set storage plain;
  end if;
end $$;

-- Each event is updated once and dead rows are a constant part of the table: vacuum early and in
-- small portions. fillfactor leaves room for that one update (12 % less WAL). Settings that a
-- person has made stay.
-- step: settings outbox_event (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor)
do $$
declare
  wanted text[] := '{fillfactor=85, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=5000, autovacuum_analyze_scale_factor=0.05}';
  setting text;
begin
  foreach setting in array wanted loop
    if not exists (select from pg_class c, unnest(c.reloptions) o
                   where c.oid = 'outbox_event'::regclass and split_part(o, '=', 1) = split_part(setting, '=', 1)) then
      execute format('alter table outbox_event set (%s)', setting);
    end if;
  end loop;
end $$;

-- Returns the present leases, without reading dead rows.
--
-- Every claim leaves a dead row here, and while a long transaction anywhere holds vacuum back none
-- of them can be pruned: reading the whole table made claims ten times slower over 3 million
-- events. So the session remembers, in a setting of its own, the snapshot it looked with last. Only
-- transaction t ever inserts token t. So a token below that snapshot's xmax which was not in
-- progress then was either visible, and is in `open`, or will never be; only those in `open` and
-- the tokens since are read. One number instead of the list would make one long writing
-- transaction, or one unsettled lease, slow again. The memory dies with the session, as it must:
-- after a failover the same transaction ids come again. Not for rows written by hand with an
-- invented token.
-- step: function outbox_leases_1
create or replace function outbox_leases_1() returns setof outbox_lease
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  me       text := 'outbox_lease'::regclass::oid::text;   -- one session may serve two schemas
  memory   text[] := string_to_array(current_setting('dispatchbox.leases', true), ' ');
  upto     bigint := 0;
  open     bigint[] := '{}';
  standing outbox_lease[];
  snapshot txid_snapshot;
begin
  if memory[1] = me then
    upto := memory[2];
    open := memory[3];
  end if;
  -- One statement, so that leases and snapshot belong together.
  select array(select l from outbox_lease l where token >= upto) || array(select l from outbox_lease l where token < upto and token = any (open)),
         txid_current_snapshot()
    into standing, snapshot;
  -- Our own transaction is never among those in progress of our own snapshot, yet its lease is
  -- still to come.
  open := array(select token from unnest(standing)) || array(select txid_snapshot_xip(snapshot));
  if txid_current_if_assigned() is not null then
    open := open || txid_current_if_assigned();
  end if;
  perform set_config('dispatchbox.leases', concat_ws(' ', me, txid_snapshot_xmax(snapshot), open), false);
  return query select * from unnest(standing);
end $$;

-- Looks at due events behind the position (after_at, after_id), in the order (next_run_at, id),
-- claims what it finds for `worker` under a new lease, and says how far it came.
--
-- A look is bounded: it reads at most `stretch` entries of outbox_event_due, whatever it may take
-- of them, and null means no such limit. So the events of a route that may not run now cost one
-- pass, never a pass for each claim. (A bound costs a second look at each row, by its place: a
-- tenth of a claim; a caller that takes whatever it finds needs none. An upper bound as a condition
-- of the index would be free, but a row comparison ends no index scan while its first columns are
-- equal.)
--
-- Segments say which events may be claimed. `bounds`, sorted in the collation "C", cut the event
-- types into segments; `groups` names the group of each segment (one more than there are bounds; 0:
-- not to be taken). `takes` is the most that each group may take now, null for as much as there is.
-- Without `takes` no group has a limit, without `bounds` all types are one group. Patterns are not
-- matched here: one binary search per row (width_bucket) replaces them, so 20 routes cost what one
-- does.
--
-- At most `events_max` events are claimed, and their payloads and headers stay below `bytes_max`
-- together, except that one event is always taken.
--
-- SKIP LOCKED guards the moment of claiming, the lease the time of handling:
-- 1. Lock due events that no lease names and no other claim has locked. Nothing here waits for a
--    row.
-- 2. With a snapshot taken after the locks, drop those that a lease committed in between names.
--    From then on no other claim can lease ours.
-- 3. Insert the lease. 4. Read the events.
-- Step 2 needs READ COMMITTED: with one snapshot for all steps two claims get the same events.
-- An event comes back with its attempts so far, never below 0; unknown statuses are never due.
--
-- Rows without a token say how far the look came. The one without a group: everything up to
-- (next_run_at, id), or up to the end of what is due where these are null, was looked at. One with
-- a group: that group has taken all it may, and more of it may lie behind this position.
--
-- The settings keep the planner on outbox_event_due. With another index on next_run_at in place
-- (the predecessor's) and unlucky statistics it read all due events and sorted them; and a plan
-- that is taken although it is switched off looks dear enough to be compiled. With little work_mem
-- the list of leased ids is read anew for each row: 100 s instead of 30 ms with 64 kB and 36,000
-- ids.
-- step: function outbox_claim_2
create or replace function outbox_claim_2(worker text, events_max int, bytes_max bigint, lease interval, after_at timestamptz, after_id bigint,
                                          stretch int, bounds text[], groups int[], takes int[])
returns table (token bigint, group_no int, id bigint, aggregate_type text, aggregate_id text, event_type text, payload text, attempts int,
               next_run_at timestamptz, created_at timestamptz, headers text)
language plpgsql set search_path from current set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off
                 set enable_mergejoin = off set enable_indexscan = on set jit = off set work_mem = '16MB' as $$
#variable_conflict use_column
declare
  small   constant int := 2048;   -- bytes up to which a payload counts as it is: measuring its text would cost as much as sending it
  growth  constant int := 255;    -- no compression makes a payload smaller than this part of it
  ids     bigint[];
  bytes   bigint;
  largest int;
  size    bigint;
  kept    int := 0;
  tok     bigint;
  upto_at timestamptz;            -- the last position that this look has seen, null for the end of what is due
  upto_id bigint;
  full_no int[];                  -- groups that took all they may
  full_at timestamptz[];
  full_id bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'claiming needs the isolation level read committed, not %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  if events_max is null or events_max not between 1 and 900 then
    raise exception 'a claim takes 1 to 900 events, not %', events_max using errcode = 'invalid_parameter_value';
  end if;
  if stretch < 1 or (stretch is null and groups is not null) then
    raise exception 'a look reads at least 1 entry, not %', stretch using errcode = 'invalid_parameter_value';
  end if;
  for turn in 1..4 loop
    if takes is not null then
      with read as materialized (
             select e.id, e.next_run_at, groups[1 + width_bucket(coalesce(e.event_type::text, '') collate "C", bounds)] as group_no
               from outbox_event e
              where e.status in ('pending', 'retry') and e.next_run_at <= now() and (e.next_run_at, e.id) > (after_at, after_id)
              order by e.next_run_at, e.id limit stretch),
           ranked as materialized (
             select id, next_run_at, group_no, row_number() over (partition by group_no order by next_run_at, id) as place,
                    count(*) over (partition by group_no) as n
               from read where group_no <> 0 and id not in (select unnest(event_ids) from outbox_leases_1())),
           chosen as materialized (
             select id, next_run_at from ranked where place <= coalesce(takes[group_no], events_max) order by next_run_at, id limit events_max),
           -- By id alone, so that no other index is thought of; what changed meanwhile is looked at
           -- again.
           locked as materialized (
             select c.id, c.next_run_at, l.bytes
               from chosen c
               cross join lateral (select pg_column_size(e.payload) + coalesce(pg_column_size(e.headers), 0) as bytes from outbox_event e
                                    where e.id = c.id and e.status || '' in ('pending', 'retry') and e.next_run_at <= now()
                                    for no key update skip locked) l),
           last as (
             (select next_run_at, id from chosen where (select count(*) from chosen) = events_max order by next_run_at desc, id desc limit 1)
             union all
             (select next_run_at, id from read where (select count(*) from chosen) < events_max and (select count(*) from read) = stretch
               order by next_run_at desc, id desc limit 1))
      select array(select id from locked order by next_run_at, id), (select sum(bytes) from locked), (select max(bytes) from locked),
             (select max(next_run_at) from last), (select max(id) from last),
             array(select group_no from ranked where place = takes[group_no] and n > place order by group_no),
             array(select next_run_at from ranked where place = takes[group_no] and n > place order by group_no),
             array(select id from ranked where place = takes[group_no] and n > place order by group_no)
        into ids, bytes, largest, upto_at, upto_id, full_no, full_at, full_id;
    elsif stretch is not null then
      with claimed as materialized (
             select e.id, pg_column_size(e.payload) + coalesce(pg_column_size(e.headers), 0) as bytes
               from (select e.ctid as place, e.id, e.next_run_at, e.event_type from outbox_event e
                      where e.status in ('pending', 'retry') and e.next_run_at <= now() and (e.next_run_at, e.id) > (after_at, after_id)
                      order by e.next_run_at, e.id limit stretch) r
               join outbox_event e on e.ctid = r.place
              where (groups is null or groups[1 + width_bucket(coalesce(r.event_type::text, '') collate "C", bounds)] <> 0)
                and r.id not in (select unnest(event_ids) from outbox_leases_1())
                and e.id = r.id and e.status in ('pending', 'retry') and e.next_run_at = r.next_run_at   -- what changed meanwhile is left
              order by r.next_run_at, r.id limit events_max for no key update of e skip locked),
           -- Of the same snapshot, and only read where it is needed.
           stop as materialized (
             select e.next_run_at, e.id from outbox_event e
              where e.status in ('pending', 'retry') and e.next_run_at <= now() and (e.next_run_at, e.id) > (after_at, after_id)
              order by e.next_run_at, e.id limit 1 offset stretch - 1)
      select coalesce(array_agg(id), '{}'), sum(c.bytes), max(c.bytes),
             case when count(*) < events_max then (select next_run_at from stop) end, case when count(*) < events_max then (select id from stop) end
        into ids, bytes, largest, upto_at, upto_id from claimed c;
    else
      select coalesce(array_agg(c.id), '{}'), sum(c.bytes), max(c.bytes) into ids, bytes, largest
        from (select e.id, pg_column_size(e.payload) + coalesce(pg_column_size(e.headers), 0) as bytes from outbox_event e
               where e.status in ('pending', 'retry') and e.next_run_at <= now() and (e.next_run_at, e.id) > (after_at, after_id)
                 and e.id not in (select unnest(event_ids) from outbox_leases_1())
               order by e.next_run_at, e.id limit events_max for no key update skip locked) c;
    end if;
    if takes is null and cardinality(ids) = events_max then
      upto_id := ids[events_max];
      select e.next_run_at into upto_at from outbox_event e where e.id = upto_id;   -- locked, so it stays what it is
    end if;
    exit when ids = '{}';
    ids := array(select id from unnest(ids) id where id not in (select unnest(event_ids) from outbox_leases_1()));
    exit when ids <> '{}';       -- all of them went to others: look again behind them
  end loop;

  -- Most claims are far below the limit, which the stored sizes show for nothing. The others are
  -- measured, only as far as it goes, because that reads the payloads: a small one as it is
  -- unpacked (#> does that and nothing else), a large one as the text that it becomes.
  if ids <> '{}' and (largest > small or bytes * growth > bytes_max) then
    bytes := 0;
    for size in
      select coalesce(case when pg_column_size(e.payload) <= small and pg_column_size(e.payload #> '{}') <= small
                           then pg_column_size(e.payload #> '{}') else octet_length(e.payload::text) end, 0)
             + coalesce(octet_length(e.headers::text), 0)
        from (select e.payload, e.headers from unnest(ids) with ordinality as u (id, place) join outbox_event e on e.id = u.id
               order by u.place offset 0) e
    loop
      bytes := bytes + size;
      exit when kept > 0 and bytes > bytes_max;
      kept := kept + 1;
    end loop;
    if kept < cardinality(ids) then
      ids := ids[:kept];
      upto_id := ids[kept];
      select e.next_run_at into upto_at from outbox_event e where e.id = upto_id;
    end if;
  end if;

  return query values (null::bigint, null::int, upto_id, null::text, null::text, null::text, null::text, null::int, upto_at,
                       null::timestamptz, null::text);
  if full_no <> '{}' then
    return query
      select null::bigint, f.group_no, f.id, null::text, null::text, null::text, null::text, null::int, f.at, null::timestamptz, null::text
        from unnest(full_no, full_at, full_id) as f (group_no, at, id)
       where upto_at is null or (f.at, f.id) < (upto_at, upto_id);
  end if;
  if ids = '{}' then
    return;
  end if;

  tok := txid_current();
  insert into outbox_lease (token, worker, expires_at, event_ids) values (tok, outbox_claim_2.worker, clock_timestamp() + lease, ids);
  return query
    select tok, null::int, e.id, coalesce(e.aggregate_type::text, ''), coalesce(e.aggregate_id::text, ''), coalesce(e.event_type::text, ''),
           coalesce(e.payload::text, 'null'), greatest(e.attempts, 0), e.next_run_at, coalesce(e.created_at, 'infinity'), e.headers::text
      from unnest(ids) with ordinality as u (id, place) join outbox_event e on e.id = u.id order by u.place;
end $$;
do $$ begin
  if current_setting('server_version_num')::int >= 130000 then
    alter function outbox_claim_2(text, int, bigint, interval, timestamptz, bigint, int, text[], int[], int[]) set enable_incremental_sort = off;
  end if;
end $$;

-- Skips finished events: where a look from (after_at, after_id) on reaches its time limit, the
-- entries of finished events stand between it and the first that is due, and a transaction
-- elsewhere keeps them. Goes at most `seconds` on, or, where all of these have the same time, as
-- after a bulk insert, over at most `ids` ids of those that are due at the time of the position, or
-- the next microsecond where that is passed. Returns the position before the next due event, (null,
-- null) if there is none up to now, or else how far it came; each is where the next look may start.
-- Nothing is claimed, and nothing that is due is passed.
-- step: function outbox_skip_1
create or replace function outbox_skip_1(after_at timestamptz, after_id bigint, seconds float8, ids bigint)
returns table (reached_at timestamptz, reached_id bigint, is_due boolean)
language plpgsql set search_path from current set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_indexscan = on
                 set jit = off as $$
#variable_conflict use_column
declare
  oldest  constant interval := '16 years';   -- from the front, events that have been due for longer are reached in one step
  last_id constant bigint := 9223372036854775807;
  upto_at timestamptz := now();
  upto_id bigint;
  wanted  numeric;
begin
  if ids is null then
    if after_at < now() then
      upto_at := least(now(), case when after_at = '-infinity' then now() - oldest else after_at end + make_interval(secs => seconds));
    end if;
    select e.next_run_at, e.id into reached_at, reached_id from outbox_event e
     where e.status in ('pending', 'retry') and e.next_run_at <= upto_at and (e.next_run_at, e.id) > (after_at, after_id)
     order by e.next_run_at, e.id limit 1;
    if reached_id is null and upto_at < now() then
      return query values (upto_at, last_id, false);
      return;
    end if;
  else
    if after_id = last_id then
      after_at := after_at + interval '1 microsecond';
      after_id := -last_id;
    end if;
    -- Ids below 1 are so rare that they are no step of their own.
    wanted := greatest(after_id, 0)::numeric + ids;
    select least(wanted, coalesce(max(id), last_id)) into upto_id from outbox_event;
    select e.next_run_at, e.id into reached_at, reached_id from outbox_event e
     where e.status in ('pending', 'retry') and e.next_run_at = after_at and e.id > after_id and e.id <= upto_id
     order by e.next_run_at, e.id limit 1;
    if reached_id is null then
      return query values (after_at, case when upto_id < wanted then last_id else upto_id end, false);
      return;
    end if;
  end if;
  return query values (reached_at, reached_id - 1, reached_id is not null);
end $$;

-- Writes the outcomes of leased events, and returns the events that the leases still named: with
-- `written` true those whose outcome stands now, and in a second row, unless all were written,
-- every one that is not released: with false where it is gone or was finished otherwise, with null
-- where the row waits as before although the update went through, because a trigger or a policy
-- swallows it. Such an event stays named by its lease, or it would be handed out again at once, for
-- ever. One that does not come back at all is named by no lease of this worker any more and was
-- left alone.
--
-- outcomes: done | retry | dead | released. delays: seconds until a retry is due. errors: for
-- last_error, null keeps it. `ended`: leases that have nothing left to settle. `expired` makes it a
-- sweep on behalf of a worker that is gone: only where the lease is really over.
--
-- Sent twice it changes nothing the second time, even while the lease names other events and
-- another worker has claimed the event since: an event that was not done is cut from the lease, and
-- one that was done is fenced by its status (so a lease is rewritten only when something failed).
-- Locks: leases by token, then events.
--
-- What stands is asked of the row as it was stored, since a trigger that returns the old row makes
-- an update that is counted as one. A retry of what was one before shows in its times alone, which
-- their columns may round. The attempts end where their column's type does, and an event whose
-- smallint counts no further is dead, because it would be tried for ever otherwise.
--
-- Events are found by their ids alone: with the bare column a planner that believes the backlog to
-- be empty, as after a vacuum while all was done, reads all of outbox_event_due for each batch.
-- step: function outbox_settle_1
create or replace function outbox_settle_1(worker text, tokens bigint[], ids bigint[], outcomes text[], delays float8[], errors text[],
                                           ended bigint[], expired boolean)
returns table (id bigint, written boolean)
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  held  bigint[];
  cut   bigint[];
  stand bigint[];
  kept  bigint[] := '{}';
  path  constant text := current_setting('search_path');
begin
  with held_leases as materialized (
         select token, event_ids from outbox_lease
          where token = any (tokens || ended) and worker = outbox_settle_1.worker and (not expired or expires_at < clock_timestamp())
          order by token for update),
       named as (select token, unnest(event_ids) as id from held_leases)
  select (select array_agg(token) from held_leases),
         array_agg(u.id), array_agg(u.outcome), array_agg(u.delay), array_agg(u.error),
         array_agg(u.id) filter (where u.outcome <> 'done' and u.token <> all (ended))
    into held, ids, outcomes, delays, errors, cut
    from unnest(tokens, ids, outcomes, delays, errors) as u (token, id, outcome, delay, error)
    join named n on n.token = u.token and n.id = u.id;

  with changed as (
    update outbox_event e set
        status = case when u.outcome = 'retry' and pg_column_size(e.attempts) = 2 and e.attempts >= 32766 then 'dead' else u.outcome end,
        attempts = least(greatest(e.attempts, 0), case pg_column_size(e.attempts) when 2 then 32766 else 2147483646 end) + 1,
        next_run_at = case when u.outcome = 'retry' then now() + make_interval(secs => least(u.delay, 1e9)) else e.next_run_at end,
        last_error = coalesce(u.error, e.last_error),
        last_error_at = case when u.outcome = 'done' and u.error is null then e.last_error_at else now() end,
        finished_at = case when u.outcome in ('done', 'dead') then now() end
      from unnest(ids, outcomes, delays, errors) as u (id, outcome, delay, error)
     where e.id = u.id and u.outcome <> 'released' and e.status || '' in ('pending', 'retry')
    returning e.id, case when e.status not in ('pending', 'retry') then true
                         when u.outcome = 'retry' then e.last_error_at in (now(), now()::timestamptz(3), now()::timestamptz(0))
                                                       or e.next_run_at > now() and e.next_run_at = now() + make_interval(secs => least(u.delay, 1e9))
                    end as stands)
  select array_agg(id) into stand from changed where stands;
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);   -- a trigger of the application has set another one
  end if;
  return query select unnest(stand), true;
  if coalesce(cardinality(stand), 0) < cardinality(ids) then
    kept := array(select e.id from unnest(ids, outcomes) as u (id, outcome) join outbox_event e on e.id = u.id
                   where u.outcome <> 'released' and u.id <> all (coalesce(stand, '{}')) and e.status || '' in ('pending', 'retry'));
    return query select u.id, case when u.id <> all (kept) then u.outcome = 'released' end from unnest(ids, outcomes) as u (id, outcome);
  end if;

  if ended <> '{}' then
    delete from outbox_lease where token = any (ended) and token = any (held) and not event_ids && kept;
  end if;
  if kept <> '{}' then
    update outbox_lease set event_ids = array(select unnest(event_ids) intersect select unnest(kept))
     where token = any (ended) and token = any (held);
  end if;
  if cut <> '{}' then
    update outbox_lease set event_ids = array(select unnest(event_ids) except (select unnest(cut) except select unnest(kept)))
     where token = any (tokens) and token = any (held) and token <> all (ended);
  end if;
end $$;

-- Settles as outbox_settle_1 does, but outcome by outcome, so that one whose row is locked, refused
-- by a trigger or a constraint, or too slow delays no other: the error comes back beside its event,
-- as SQLSTATE and words, in a row that says nothing about `written`. For a batch that failed as a
-- whole; it costs a subtransaction per event. A lease of `ended` that has events left does not end.
--
-- The statement's time runs out only once: the row that was being written then is to blame, and
-- those behind it come back untried, with an empty SQLSTATE. No row is begun in the second half of
-- that time, so the one to blame has had the first. Untried, too, comes back what is behind the
-- fifth locked row: the whole table may be. What concerns no row, a full disk for example, fails
-- the call.
-- step: function outbox_settle_each_1
create or replace function outbox_settle_each_1(worker text, tokens bigint[], ids bigint[], outcomes text[], delays float8[], errors text[],
                                                ended bigint[], expired boolean)
returns table (id bigint, written boolean, code text, cause text)
language plpgsql set search_path from current as $$
#variable_conflict use_column
declare
  locked_max constant int := 5;
  patience   constant interval := nullif(current_setting('statement_timeout')::interval, '0') / 2;
  n_locked   int := 0;
  is_over    boolean := false;
  open       bigint[] := '{}';   -- leases with something left
begin
  set constraints all immediate;   -- what refuses a row only at the commit would take all of them with it
  for i in 1..coalesce(cardinality(ids), 0) loop
    id := ids[i];
    code := null;
    cause := null;
    if is_over then
      written := null;
      code := '';
    else
      begin
        begin
          select s.written into written
            from outbox_settle_1(worker, tokens[i:i], ids[i:i], outcomes[i:i], delays[i:i], errors[i:i], '{}', expired) s;
          if not found then
            continue;            -- no lease of this worker names it
          end if;
        exception
          when disk_full or read_only_sql_transaction then
            raise;
          when others or query_canceled then
            code := sqlstate;
            cause := left(sqlerrm, 1000);
        end;
      exception when query_canceled then   -- only noticed once the update had failed
        code := coalesce(code, sqlstate);
        cause := coalesce(cause, sqlerrm);
      end;
      if code is not null then
        written := null;
        n_locked := n_locked + (code = '55P03')::int;
        is_over := code = '57014' or n_locked >= locked_max;
      end if;
    end if;
    is_over := is_over or coalesce(clock_timestamp() > statement_timestamp() + patience, false);
    if written is null then
      open := open || tokens[i];
    end if;
    return next;
  end loop;
  ended := array(select t from unnest(ended) t where t <> all (open));
  if ended <> '{}' then
    perform outbox_settle_1(worker, '{}', '{}', '{}', '{}', '{}', ended, expired);
  end if;
end $$;

-- Reads an event as a claim does, and returns how many bytes its texts have; fails where a claim of
-- it would.
-- step: function outbox_read_1
create or replace function outbox_read_1(id bigint) returns bigint
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  bytes_max constant bigint := 1000000000;   -- a row that is longer than this reaches no client
  bytes     bigint;
begin
  -- What the server sends to a session of ours: as it is in SQL_ASCII.
  select coalesce(sum(case when getdatabaseencoding() in ('UTF8', 'SQL_ASCII') then octet_length(v.text)
                           else octet_length(convert_to(v.text, 'UTF8')) end), 0) into bytes
    from outbox_event e
    cross join lateral (values (e.aggregate_type::text), (e.aggregate_id::text), (e.event_type::text), (e.payload::text), (e.headers::text)) v (text)
   where e.id = outbox_read_1.id;
  if bytes > bytes_max then
    raise exception 'its texts have % bytes together', bytes using errcode = 'program_limit_exceeded';
  end if;
  return bytes;
end $$;

-- Returns why an event cannot be read, as SQLSTATE and words; nulls if it can.
-- step: function outbox_try_read_1
create or replace function outbox_try_read_1(id bigint, out code text, out cause text)
language plpgsql set search_path from current as $$
begin
  begin
    perform outbox_read_1(id);
  exception when others or query_canceled then
    code := sqlstate;
    cause := left(sqlerrm, 1000);
  end;
exception when query_canceled then   -- only noticed once the reading had failed
  code := coalesce(code, sqlstate);
  cause := coalesce(cause, sqlerrm);
end $$;

-- Passes over due events that cannot be read: bytes without a character, a payload whose text has
-- no end, a damaged row. Reads up to `stretch` of those behind the position (after_at, after_id)
-- that no lease names, each as a claim does, and puts those that fail under a lease of their own,
-- which all claims pass over until `wait` seconds are over. Its worker is named `unreadable/1`,
-- which is no worker's name: no sweep charges it, and outbox_look_again_1 ends it. Returns the
-- events that it has passed over, each with the reason.
--
-- The statement's time runs out only once: the event that was being read then is to blame, and the
-- walk ends. None is begun in the second half of that time. As in outbox_claim_2 the leases are
-- looked at again once the rows are locked.
-- step: function outbox_pass_over_1
create or replace function outbox_pass_over_1(after_at timestamptz, after_id bigint, stretch int, wait float8)
returns table (id bigint, code text, cause text)
language plpgsql set search_path from current set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
#variable_conflict use_column
declare
  patience constant interval := nullif(current_setting('statement_timeout')::interval, '0') / 2;
  one      bigint;
  bad      bigint[] := '{}';
  free     bigint[];
  codes    text[] := '{}';
  causes   text[] := '{}';
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'passing over needs the isolation level read committed, not %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  for one in
    select e.id from outbox_event e
     where e.status in ('pending', 'retry') and e.next_run_at <= now() and (e.next_run_at, e.id) > (after_at, after_id)
       and e.id not in (select unnest(event_ids) from outbox_leases_1())
     order by e.next_run_at, e.id limit stretch
  loop
    select t.code, t.cause into code, cause from outbox_try_read_1(one) t;
    if code is not null then
      bad := bad || one;
      codes := codes || code;
      causes := causes || cause;
      exit when code = '57014';
    end if;
    exit when clock_timestamp() > statement_timestamp() + patience;
  end loop;
  if bad = '{}' then
    return;
  end if;

  free := array(select e.id from outbox_event e where e.id = any (bad) and e.status || '' in ('pending', 'retry') for no key update skip locked);
  free := array(select f from unnest(free) f where f not in (select unnest(event_ids) from outbox_leases_1()));
  if free <> '{}' then
    insert into outbox_lease (token, worker, expires_at, event_ids)
    values (txid_current(), 'unreadable/1', clock_timestamp() + make_interval(secs => wait), free);
    return query select u.id, u.code, u.cause from unnest(bad, codes, causes) as u (id, code, cause) where u.id = any (free);
  end if;
end $$;

-- Looks again at the events of one lease of outbox_pass_over_1 that is over. What can be read now,
-- is gone or was finished otherwise is free; the rest waits under another lease for the next look,
-- `waits[looks]` seconds. After as many looks as there are waits an event is dead, where that can
-- be written. No attempt is charged: no handler ran. Returns each event with the result: readable |
-- unreadable | dead. No reading is begun in the second half of the statement's time, as in
-- outbox_pass_over_1; what is left waits, and comes first the next time.
-- step: function outbox_look_again_1
create or replace function outbox_look_again_1(waits float8[])
returns table (id bigint, outcome text, looks int, code text, cause text)
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  lease    outbox_lease;
  patience constant interval := nullif(current_setting('statement_timeout')::interval, '0') / 2;
  untried  bigint[] := '{}';
  bad      bigint[] := '{}';
  is_over  boolean := false;
  path     constant text := current_setting('search_path');
begin
  select l.* into lease from outbox_lease l
   where l.token = (select s.token from outbox_leases_1() s
                     where s.worker like 'unreadable/%' and s.expires_at < clock_timestamp() order by s.token limit 1)
     for update skip locked;
  if not found then
    return;
  end if;
  looks := split_part(lease.worker, '/', 2)::int;
  foreach id in array lease.event_ids loop
    if is_over then
      untried := untried || id;
      continue;
    end if;
    select t.code, t.cause, case when t.code is null then 'readable' else 'unreadable' end into code, cause, outcome from outbox_try_read_1(id) t;
    if outcome = 'unreadable' and looks >= cardinality(waits) then
      begin
        update outbox_event e set status = 'dead', last_error = 'could not be read: ' || outbox_look_again_1.cause, last_error_at = now(), finished_at = now()
         where e.id = outbox_look_again_1.id and e.status || '' in ('pending', 'retry');
        if current_setting('search_path') <> path then
          perform set_config('search_path', path, true);   -- as in outbox_settle_1
        end if;
        if exists (select from outbox_event e where e.id = outbox_look_again_1.id and e.status || '' not in ('pending', 'retry')) then
          outcome := 'dead';
        end if;
      exception when others then
        null;                    -- it waits on
      end;
    end if;
    if outcome = 'unreadable' then
      bad := bad || id;
    end if;
    is_over := code is not distinct from '57014' or coalesce(clock_timestamp() > statement_timestamp() + patience, false);
    return next;
  end loop;
  delete from outbox_lease l where l.token = lease.token;
  bad := untried || bad;
  if bad <> '{}' then
    insert into outbox_lease (token, worker, expires_at, event_ids)
    values (txid_current(), 'unreadable/' || looks + 1,
            clock_timestamp() + make_interval(secs => waits[least(looks + 1, cardinality(waits))]), bad);
  end if;
end $$;

-- Makes dead events due again from the first attempt on, as a person asked, and returns each event
-- that was dead: with null where it was requeued, or else with the reason in words. Left alone is
-- what another session has locked at this moment, and what a lease names (a person's own UPDATE may
-- have made it dead meanwhile): made pending, it would be settled by the worker that still holds
-- it, and handed out once more.
--
-- As in outbox_claim_2, leases are looked at with a snapshot taken after the row locks: from then
-- on none can come to name these events, since dead events are never claimed. Nothing here waits
-- for a row. By id alone, as in outbox_settle_1.
--
-- One event delays no other, as in outbox_move_1: a part that fails is undone and tried again in
-- halves, until the event is alone that a trigger or a constraint refuses. What concerns no single
-- event, a missing privilege for example, fails first, with the empty part. What is dead after all
-- that was kept by a trigger that said nothing.
-- step: function outbox_requeue_2
create or replace function outbox_requeue_2(ids bigint[]) returns table (id bigint, reason text)
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  path         constant text := current_setting('search_path');
  lock_wait    constant text := '100ms';   -- for what triggers and unique indexes wait for
  locked_max   constant int := 10;
  lock_timeout constant text := current_setting('lock_timeout');
  n_locked     int := 0;
  locked    bigint[];
  leased    bigint[];
  deferred  text;     -- constraints that would be checked only at the commit, where no part can be undone
  lows      int[];    -- the parts to be tried, as places in `locked`; the next one first
  highs     int[];
  low       int;
  high      int;
  requeued  bigint[];
  kept      bigint[];
  failure   text;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'requeueing needs the isolation level read committed, not %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  ids := array(select distinct unnest(ids));
  locked := array(select e.id from outbox_event e where e.id = any (ids) and e.status || '' = 'dead' for no key update skip locked);
  return query
    select e.id, 'another transaction has locked it'
      from outbox_event e where e.id = any (array(select unnest(ids) except select unnest(locked))) and e.status || '' = 'dead';
  leased := array(select unnest(locked) intersect select unnest(event_ids) from outbox_leases_1());
  return query select u.id, 'a lease still names it' from unnest(leased) u (id);
  locked := array(select unnest(locked) except select unnest(leased) order by 1);

  update outbox_event set status = 'pending', attempts = 0, next_run_at = now(), finished_at = null where false;
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  select string_agg(format('%I.%I', n.nspname, c.conname), ', ') into deferred
    from pg_constraint c join pg_namespace n on n.oid = c.connamespace
   where c.condeferred and 'outbox_event'::regclass in (c.conrelid, c.confrelid);
  if deferred is not null then
    execute format('set constraints %s immediate', deferred);
  end if;

  if locked <> '{}' then
    lows := array[1];
    highs := array[cardinality(locked)];
  end if;
  perform set_config('lock_timeout', lock_wait, true);
  while cardinality(lows) > 0 loop
    low := lows[1];
    high := highs[1];
    lows := lows[2:];
    highs := highs[2:];
    failure := null;
    begin
      with changed as (
        update outbox_event e set status = 'pending', attempts = 0, next_run_at = now(), finished_at = null
         where e.id = any (locked[low:high]) and e.status || '' = 'dead' returning e.id)
      select array_agg(c.id) into requeued from changed c;
      -- A trigger may set it for the whole transaction.
      if current_setting('search_path') <> path then
        perform set_config('search_path', path, true);
      end if;
    exception when others then
      -- The connection, another transaction, the server's room: nothing that halves would help.
      if left(sqlstate, 2) in ('08', '25', '40', '57') or left(sqlstate, 2) = '53' and sqlstate <> '53200' then
        raise;
      end if;
      failure := case when sqlstate = '55P03' then 'another transaction has locked it' else left(sqlerrm, 300) end;
      n_locked := n_locked + (sqlstate = '55P03' and low = high)::int;
    end;
    if failure is not null and low < high and not (n_locked >= locked_max and failure = 'another transaction has locked it') then
      lows := array[low, (low + high) / 2 + 1] || lows;
      highs := array[(low + high) / 2, high] || highs;
    elsif failure is not null then
      return query select unnest(locked[low:high]), failure;
    else
      kept := array(select e.id from outbox_event e where e.id = any (locked[low:high]) and e.status || '' = 'dead');
      return query select u.id, 'a trigger or a policy of outbox_event keeps it' from unnest(kept) u (id);
      return query select u.id, null from (select unnest(requeued) as id except select unnest(kept)) u;
    end if;
  end loop;
  perform set_config('lock_timeout', lock_timeout, true);
  if deferred is not null then
    execute format('set constraints %s deferred', deferred);
  end if;
end $$;

-- The same as outbox_requeue_2 for psql, and for older versions of the program: returns the events
-- that were requeued, and warns of the others.
-- step: function outbox_requeue_1
create or replace function outbox_requeue_1(ids bigint[]) returns setof bigint
language plpgsql set search_path from current as $$
#variable_conflict use_column
declare
  requeued bigint[];
  kept     bigint[];
  reasons  text[];
begin
  select array_agg(r.id) filter (where r.reason is null), array_agg(r.id) filter (where r.reason is not null),
         array_agg(r.reason) filter (where r.reason is not null)
    into requeued, kept, reasons from outbox_requeue_2(ids) r;
  perform outbox_warn_1(kept, reasons);
  return query select unnest(requeued);
end $$;

-- Moves those of these events that have the status to the archive, with all their columns, and
-- returns those that stay, each with the reason in words.
--
-- One event delays no other: a part that fails is undone and tried again in halves, until the event
-- is alone that a foreign key, a trigger or a constraint keeps. What concerns no single event, a
-- missing privilege for example, fails first, with the empty part. Events that a foreign key refers
-- to are looked for before that where the role may read the other table: this costs less than the
-- halves.
--
-- No event is lost. An event stays whose id is in the archive already, one that a trigger swallows
-- on its way, and one with a value that the archive has no column for. A null in one of the first
-- nine columns is archived as a claim would read it.
--
-- The ids are written as `= any` and not as a join, which a planner that knows their number would
-- make by reading the whole table. A row that another transaction has locked is waited for briefly.
-- Once a few were met, a part that meets one stays as a whole until the next call. (SKIP LOCKED
-- needs a privilege to update, which a role that archives has no use for.)
-- step: function outbox_move_1
create or replace function outbox_move_1(ids bigint[], status text) returns table (id bigint, reason text)
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  path         constant text := current_setting('search_path');
  event        constant regclass := 'outbox_event'::regclass;
  archive      constant regclass := 'outbox_event_archive'::regclass;
  lock_wait    constant text := '100ms';
  locked_max   constant int := 10;
  lock_timeout constant text := current_setting('lock_timeout');
  n_locked     int := 0;
  targets   text;     -- columns of the archive, and what is written to each
  sources   text;
  homeless  text;     -- columns of the event that the archive has no column for
  names     text;
  remedy    text;
  moving    text;
  deferred  text;     -- constraints that would be checked only at the commit, where no part can be undone
  reference record;
  kept      bigint[];
  lows      int[];    -- the parts to be tried, as places in `ids`; the next one first
  highs     int[];
  low       int;
  high      int;
  gone      bigint[];
  arrived   bigint[];
  failure   text;
begin
  with source as (
    select e.attname as name, e.attnum as place, format_type(e.atttypid, e.atttypmod) as type,
           a.attgenerated = '' and e.attname <> 'archived_at' as is_written,
           -- claim_token: by which older programs knew what they had claimed.
           e.attgenerated = '' and e.attname <> 'claim_token' and (a.attname is null or e.attname = 'archived_at') as is_homeless
      from pg_attribute e
      left join pg_attribute a on a.attrelid = archive and a.attname = e.attname and not a.attisdropped
     where e.attrelid = event and e.attnum > 0 and not e.attisdropped)
  select string_agg(format('%I', name), ', ' order by place) filter (where is_written),
         string_agg(format(case when instead is null then 'm.%I' else 'coalesce(m.%I, %L)' end, name, instead), ', ' order by place)
           filter (where is_written),
         string_agg(format('m.%I', name), ', ' order by place) filter (where is_homeless),
         string_agg(name, ', ' order by place) filter (where is_homeless),
         string_agg(case when name = 'archived_at' then 'alter table outbox_event rename column archived_at to ...'
                         else format('alter table outbox_event_archive add column %I %s', name, type) end, '; ' order by place)
           filter (where is_homeless)
    into targets, sources, homeless, names, remedy
    from source
    left join (values ('aggregate_type', ''), ('aggregate_id', ''), ('event_type', ''), ('payload', 'null'), ('attempts', '0'),
                      ('next_run_at', 'infinity'), ('created_at', 'infinity')) as nulls (name, instead) using (name);
  if homeless is not null then
    execute format('select array(select m.id from outbox_event m where m.id = any ($1) and num_nonnulls(%s) > 0)', homeless)
      into kept using ids;
    return query
      select u.id, format('outbox_event_archive has no column for the values of %s in outbox_event: %s', names, remedy) from unnest(kept) u (id);
    ids := array(select unnest(ids) except select unnest(kept) order by 1);
  end if;
  select string_agg(format('%I', a.attname), ', ') into names
    from pg_attribute a
   where a.attrelid = archive and a.attnum > 0 and not a.attisdropped and a.attnotnull and not a.atthasdef
     and a.attidentity = '' and a.attgenerated = '' and a.attname <> 'archived_at'
     and not exists (select from pg_attribute e where e.attrelid = event and e.attname = a.attname and not e.attisdropped);
  if names is not null then
    raise exception 'outbox_event_archive demands %, which no event has: give it a default, or drop its not null', names
      using errcode = 'object_not_in_prerequisite_state';
  end if;

  kept := array(select a.id from outbox_event_archive a where a.id = any (ids));
  return query select u.id, 'its id is in the archive already' from unnest(kept) u (id);
  ids := array(select unnest(ids) except select unnest(kept) order by 1);
  for reference in
    select c.conname as name, format('%I.%I', n.nspname, r.relname) as relation, a.attname as attribute
      from pg_constraint c
      join pg_class r on r.oid = c.conrelid
      join pg_namespace n on n.oid = r.relnamespace
      join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
      join pg_attribute e on e.attrelid = event and e.attnum = c.confkey[1]
     where c.contype = 'f' and c.confrelid = event and c.conrelid <> event and c.conparentid = 0 and c.confdeltype in ('a', 'r')
       and cardinality(c.conkey) = 1 and e.attname = 'id'
       and has_schema_privilege(n.oid, 'USAGE') and has_column_privilege(r.oid, a.attnum, 'SELECT')
  loop
    execute format('select array(select u.id from unnest($1) u (id) where exists (select from %s r where r.%I = u.id))',
                   reference.relation, reference.attribute)
      into kept using ids;
    return query select u.id, format('%s refers to it (foreign key %I)', reference.relation, reference.name) from unnest(kept) u (id);
    ids := array(select unnest(ids) except select unnest(kept) order by 1);
  end loop;

  moving := format('with moved as (delete from outbox_event e where e.id = any ($1) and e.status || '''' = $2 returning e.*),
                         stored as (insert into outbox_event_archive (archived_at, %s) overriding system value
                                    select now(), %s from moved m returning id)
                    select array(select id from moved), array(select id from stored)', targets, sources);
  -- Not with an empty list: a planner that believes the partial indexes to be empty reads the whole
  -- of one for it.
  execute replace(moving, 'e.id = any', 'false and e.id = any') into gone, arrived using ids, status;
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  select string_agg(format('%I.%I', n.nspname, c.conname), ', ') into deferred
    from pg_constraint c join pg_namespace n on n.oid = c.connamespace
   where c.condeferred and (c.confrelid = event or c.conrelid in (event, archive));
  if deferred is not null then
    execute format('set constraints %s immediate', deferred);
  end if;

  if ids <> '{}' then
    lows := array[1];
    highs := array[cardinality(ids)];
  end if;
  perform set_config('lock_timeout', lock_wait, true);
  while cardinality(lows) > 0 loop
    low := lows[1];
    high := highs[1];
    lows := lows[2:];
    highs := highs[2:];
    failure := null;
    begin
      execute moving into gone, arrived using ids[low:high], status;
      -- A trigger may set it for the whole transaction.
      if current_setting('search_path') <> path then
        perform set_config('search_path', path, true);
      end if;
      -- A trigger may as well have put it into a child table.
      if cardinality(arrived) < cardinality(gone)
         and exists (select from unnest(gone) u (id) where not exists (select from outbox_event_archive a where a.id = u.id)) then
        raise exception 'a trigger of outbox_event_archive swallows it';
      end if;
    exception when others then
      -- The connection, another transaction, the server's room: nothing that halves would help.
      if left(sqlstate, 2) in ('08', '25', '40', '57') or left(sqlstate, 2) = '53' and sqlstate <> '53200' then
        raise;
      end if;
      failure := case when sqlstate = '55P03' then 'another transaction has locked it' else left(sqlerrm, 300) end;
      n_locked := n_locked + (sqlstate = '55P03' and low = high)::int;
    end;
    if failure is not null and low < high and not (n_locked >= locked_max and failure = 'another transaction has locked it') then
      lows := array[low, (low + high) / 2 + 1] || lows;
      highs := array[(low + high) / 2, high] || highs;
    elsif failure is not null then
      return query select unnest(ids[low:high]), failure;
    elsif cardinality(gone) <= high - low then
      return query select u.id, 'a trigger or a policy of outbox_event keeps it'
                     from (select unnest(ids[low:high]) as id except select unnest(gone)) u
                     join outbox_event e on e.id = u.id and e.status || '' = outbox_move_1.status;
    end if;
  end loop;
  perform set_config('lock_timeout', lock_timeout, true);
  if deferred is not null then
    execute format('set constraints %s deferred', deferred);
  end if;
end $$;

-- Warns of the events that stay in the table, grouped by the reason, the most frequent ones first.
-- step: function outbox_warn_1
create or replace function outbox_warn_1(ids bigint[], reasons text[]) returns void language plpgsql as $$
declare
  ids_shown_max     constant int := 10;
  reasons_shown_max constant int := 10;
  n_rest            bigint := cardinality(ids);
  stay              record;
begin
  for stay in
    select k.reason, count(*) as n, array_agg(k.id order by k.id) as ids
      from unnest(ids, reasons) as k (id, reason) group by k.reason order by 2 desc, 1 limit reasons_shown_max
  loop
    if stay.n = 1 then
      raise warning 'event % stays in outbox_event: %', stay.ids[1], stay.reason;
    else
      raise warning '% events (%) stay in outbox_event: %', stay.n,
                    array_to_string(stay.ids[:ids_shown_max], ', ') || case when stay.n > ids_shown_max then ', ...' else '' end, stay.reason;
    end if;
    n_rest := n_rest - stay.n;
  end loop;
  if n_rest > 0 then
    raise warning 'further events stay in outbox_event for other reasons: %', n_rest;
  end if;
end $$;

-- Moves dead events to the archive, payload and error included, and returns each event that was
-- dead: with null where it was moved, or else with the reason in words. Left alone is what
-- outbox_requeue_2 leaves alone, for the same reasons, and what outbox_move_1 does.
-- step: function outbox_discard_2
create or replace function outbox_discard_2(ids bigint[]) returns table (id bigint, reason text)
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  locked  bigint[];
  leased  bigint[];
  kept    bigint[];
  reasons text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'discarding needs the isolation level read committed, not %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  ids := array(select distinct unnest(ids));
  locked := array(select e.id from outbox_event e where e.id = any (ids) and e.status || '' = 'dead' for update skip locked);
  return query
    select e.id, 'another transaction has locked it'
      from outbox_event e where e.id = any (array(select unnest(ids) except select unnest(locked))) and e.status || '' = 'dead';
  leased := array(select unnest(locked) intersect select unnest(event_ids) from outbox_leases_1());
  return query select u.id, 'a lease still names it' from unnest(leased) u (id);
  locked := array(select unnest(locked) except select unnest(leased));
  begin
    select coalesce(array_agg(m.id), '{}'), coalesce(array_agg(m.reason), '{}') into kept, reasons from outbox_move_1(locked, 'dead') m;
  exception when object_not_in_prerequisite_state then
    kept := locked;
    reasons := array_fill(sqlerrm, array[cardinality(locked)]);
  end;
  return query select u.id, k.reason from unnest(locked) u (id) left join unnest(kept, reasons) k (id, reason) on k.id = u.id;
end $$;

-- The same as outbox_discard_2 for psql, and for older versions of the program: returns the events
-- that were moved, and warns of the others.
-- step: function outbox_discard_1
create or replace function outbox_discard_1(ids bigint[]) returns setof bigint
language plpgsql set search_path from current as $$
#variable_conflict use_column
declare
  moved   bigint[];
  kept    bigint[];
  reasons text[];
begin
  select array_agg(d.id) filter (where d.reason is null), array_agg(d.id) filter (where d.reason is not null),
         array_agg(d.reason) filter (where d.reason is not null)
    into moved, kept, reasons from outbox_discard_2(ids) d;
  perform outbox_warn_1(kept, reasons);
  return query select unnest(moved);
end $$;

-- Renews the leases in hand that still exist. A token that is not returned is lost, or locked at
-- this moment: the caller asks again.
-- step: function outbox_renew_1
create or replace function outbox_renew_1(worker text, tokens bigint[], lease interval) returns setof bigint
language sql set search_path from current set enable_seqscan = off as $$
  update outbox_lease l set expires_at = clock_timestamp() + outbox_renew_1.lease
   where l.token in (select h.token from outbox_lease h where h.token = any (tokens) and h.worker = outbox_renew_1.worker
                      order by h.token for update skip locked)
  returning l.token
$$;

-- TRUNCATE ... RESTART IDENTITY counts ids from 1 again: a new event must not meet the lease of an
-- old one. The schema comes from the trigger, not from the search_path of the session that
-- truncates.
-- step: function outbox_truncated_1
create or replace function outbox_truncated_1() returns trigger language plpgsql as $$
begin
  execute format('delete from %I.outbox_lease', tg_table_schema);
  return null;
end $$;

-- step: trigger outbox_event_truncated
do $$ begin
  if not exists (select from pg_trigger where tgrelid = 'outbox_event'::regclass and tgname = 'outbox_event_truncated') then
    create trigger outbox_event_truncated after truncate on outbox_event for each statement execute function outbox_truncated_1();
  end if;
end $$;

-- Moves those of the next 10,000 events behind the id `after` that have been done for
-- `retention_days` to the archive, warns of each that stays and why, and returns the last id it has
-- looked at; null where there was none. In windows along the primary key, because looking each time
-- for the next rows to move, from the start of the table, costs three times as much. Events that a
-- lease names stay without a warning: they are moved later.
-- step: function outbox_archive_part_1
create or replace function outbox_archive_part_1(retention_days int, after bigint) returns bigint
language plpgsql set search_path from current set enable_seqscan = off as $$
#variable_conflict use_column
declare
  ids_max  constant int := 10000;
  days_max constant int := 1000000;   -- what timestamps can still reckon with
  upper    bigint;
  ids      bigint[];
  kept     bigint[];
  reasons  text[];
begin
  if retention_days is null or retention_days not between 0 and days_max then
    raise exception 'retention_days must be from 0 to %, not %', days_max, coalesce(retention_days::text, 'null')
      using errcode = 'invalid_parameter_value';
  end if;
  select max(id) into upper from (select id from outbox_event where id > after order by id limit ids_max) w;
  if upper is null then
    if after = -9223372036854775808 and row_security_active('outbox_event') then
      raise warning 'the role % sees no event in outbox_event, which has row-level security', current_user;
    end if;
    return null;
  end if;
  ids := array(select e.id from outbox_event e
                where e.id > after and e.id <= upper and e.status = 'done'
                  and coalesce(e.finished_at, e.created_at) < now() - make_interval(days => retention_days)
                  and e.id not in (select unnest(event_ids) from outbox_leases_1()) order by e.id);
  if ids <> '{}' then
    select array_agg(m.id), array_agg(m.reason) into kept, reasons from outbox_move_1(ids, 'done') m;
    perform outbox_warn_1(kept, reasons);
  end if;
  return upper;
end $$;

-- Moves all events that have been done for `retention_days` to the archive, in one transaction. For
-- a large backlog there is outbox_archive_1. It ends where the table ended at its begin: rows that
-- producers write meanwhile would keep it going for ever.
-- step: function archive_outbox_events
create or replace function archive_outbox_events(retention_days int default 7) returns void
language plpgsql set search_path from current as $$
declare
  after bigint := -9223372036854775808;
  last  bigint := coalesce((select max(id) from outbox_event), after);
begin
  loop
    after := outbox_archive_part_1(retention_days, after);
    exit when after is null or after >= last;
  end loop;
end $$;

-- Archives as archive_outbox_events does, with a commit after each part, so that no lock is held
-- for long and an interruption loses nothing: `call outbox_archive_1(7)`, outside of a transaction.
-- A procedure that commits cannot be bound to its schema by a setting; it learns it from its own
-- name in the call stack, where PostgreSQL leaves the schema out if the search_path leads there.
-- step: function outbox_archive_1
create or replace procedure outbox_archive_1(retention_days int default 7) language plpgsql as $$
declare
  after bigint := -9223372036854775808;
  last  bigint;
  stack text;
  home  text;
begin
  get diagnostics stack = pg_context;
  home := coalesce(substring(stack from '("(?:[^"]|"")+"\.|\S+\.)outbox_archive_1\('), '');
  execute format('select coalesce(max(id), $1) from %soutbox_event', home) into last using after;
  loop
    execute format('select %soutbox_archive_part_1($1, $2)', home) into after using retention_days, after;
    commit;
    exit when after is null or after >= last;
  end loop;
end $$;

-- step: none
do $$ begin
  perform set_config('search_path', current_setting('dispatchbox.search_path'), false);
  perform set_config('lock_timeout', current_setting('dispatchbox.lock_timeout'), false);
end $$;
