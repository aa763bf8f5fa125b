-- Called by store/readiness.rs before the start and for /ready, and by the commands that read
-- events: names the tables whose row-level security hides rows from the session's role, which
-- PostgreSQL does without an error. A table whose policies let the role do all that it needs on all
-- rows is none of them; of expressions only the plain `true` counts as that, since the value of
-- others is known only row by row. $1: the role only reads events. Plan: a handful of rows.
with needed (relation, command) as (values
  ('outbox_event', 'r'), ('outbox_event', 'w'), ('outbox_lease', 'r'), ('outbox_lease', 'a'), ('outbox_lease', 'w'), ('outbox_lease', 'd')),
wanted as (
  select c.oid, n.relation, n.command
    from needed n
    join pg_class c on c.relname = n.relation and c.relkind = 'r'
     and c.relnamespace = (select relnamespace from pg_class where oid = to_regclass('outbox_event'))
   where row_security_active(c.oid) and (not $1 or n.relation = 'outbox_event' and n.command = 'r')),
policies as (
  select w.oid, w.relation, w.command, p.polname, p.polpermissive,
         w.command = 'a' or pg_get_expr(p.polqual, p.polrelid) = 'true' as shows_all,
         w.command in ('r', 'd') or coalesce(pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid)) = 'true' as takes_all
    from wanted w
    left join pg_policy p on p.polrelid = w.oid and p.polcmd::text in (w.command, '*')
     and (0 = any (p.polroles) or exists (select from unnest(p.polroles) role where role <> 0 and pg_has_role(role, 'USAGE')))),
judged as (
  select oid, relation, command,
         coalesce(bool_or(polpermissive and shows_all), false) and coalesce(bool_or(polpermissive and takes_all), false) as is_open,
         string_agg(quote_ident(polname), ', ' order by polname) filter (where not polpermissive and not (shows_all and takes_all)) as restrictive
    from policies group by oid, relation, command)
select format('row-level security hides rows of %s from the role %I: ', relation, current_user)
       || case when max(restrictive) is null
               then format('create policy dispatchbox on %s to %I using (true)', relation, current_user)
               else format('drop the restrictive policy %s, or alter role %I bypassrls', max(restrictive), current_user) end
  from judged where not is_open or restrictive is not null
 group by relation order by relation
