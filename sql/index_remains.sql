-- Called by store/schema/migration.rs before it builds the index $1 on the table $2: no row when the name is free, true when an interrupted
-- build left it there invalid, false when it is anything else's, which is not ours to touch.
select coalesce(i.indrelid = to_regclass($2::text) and not i.indisvalid, false)
  from pg_class c left join pg_index i on i.indexrelid = c.oid
 where c.oid = to_regclass($1::text)
