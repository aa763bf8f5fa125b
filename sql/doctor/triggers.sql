-- A check of `dispatchbox doctor`: triggers and rules of other programs on our tables. One that
-- fails, or swallows an update, keeps events from being settled.
select 'warning', format('the trigger %I runs whenever %s of %s', tgname,
                         concat_ws(' or ', case when tgtype & 16 > 0 then 'a row is updated' end, case when tgtype & 8 > 0 then 'a row is deleted' end), tgrelid::regclass),
       format('see that it neither fails nor returns null nor takes long: each outcome of an event passes through it; else DROP TRIGGER %I ON %s', tgname, tgrelid::regclass),
       json_build_object('trigger', tgname, 'table', tgrelid::regclass::text)::text
  from pg_trigger
 where tgrelid in (to_regclass('outbox_event'), to_regclass('outbox_lease')) and not tgisinternal and tgenabled <> 'D' and tgtype & 24 > 0
union all
select 'warning', format('the rule %I rewrites %s of %s', rulename, case ev_type when '2' then 'updates' when '3' then 'inserts' when '4' then 'deletes' else 'reads' end, ev_class::regclass),
       format('DROP RULE %I ON %s', rulename, ev_class::regclass),
       json_build_object('rule', rulename, 'table', ev_class::regclass::text)::text
  from pg_rewrite where ev_class in (to_regclass('outbox_event'), to_regclass('outbox_lease'))
 limit 10
