-- Called by store/schema/migration.rs before it builds the index $1 on the table $2: no row when
-- the name is free, `invalid` when an interrupted build left it there so, `valid` when another
-- session has built it meanwhile, null when the name belongs to anything else, which must not be
-- touched.
select case when i.indrelid = to_regclass($2::text) then case when i.indisvalid then 'valid' else 'invalid' end end
  from pg_class c left join pg_index i on i.indexrelid = c.oid
 where c.oid = to_regclass($1::text)
