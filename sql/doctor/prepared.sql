-- A check of `dispatchbox doctor`: transactions that were prepared long ago ($1: seconds). They
-- hold back vacuum, also after a restart of the server.
select 'warning', format('the transaction %L has been prepared for %s', gid, date_trunc('second', clock_timestamp() - prepared)),
       format('in the database %I: COMMIT PREPARED %L, or ROLLBACK PREPARED %L', database, gid, gid),
       json_build_object('gid', gid, 'database', database, 'seconds', extract(epoch from clock_timestamp() - prepared)::bigint)::text
  from pg_prepared_xacts where prepared < clock_timestamp() - make_interval(secs => $1::float8) order by prepared limit 5
