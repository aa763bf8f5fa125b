-- Called by store/schema/mod.rs: of the functions named in $1, returns those that are there, but
-- with another body than in $2 or bound to another schema than the one they are in (which was
-- renamed, for example). The texts are compared without quotes, since each has quotes or not as
-- quote_all_identifiers was on or off when it was made.
select f.name
  from unnest($1::text[], $2::text[]) as f (name, body)
  join pg_proc p on p.proname = f.name and p.pronamespace = (select oid from pg_namespace where nspname = current_schema())
 where p.prosrc <> f.body
    or p.proconfig is not null and not exists (
         select from unnest(p.proconfig) c where replace(c, '"', '') = 'search_path=' || replace(current_setting('search_path'), '"', ''))
