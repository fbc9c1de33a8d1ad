-- Give publications of one server their places, hold them, and tell them: all of that, or nothing. Topics are locked in
-- the order of their names, so that two batches never wait for each other. Those of '-', who is no server, are not counted.
create function publish_all(
  _server text, _life text, _keeps boolean, _word text, _remember double precision,
  _count bigint, _size bigint, _age double precision,
  _topics text[], _numbers bigint[], _messages bytea[], _texts boolean[], _keys bytea[], _extras text[]
) returns table (i bigint, epoch text, "offset" bigint) language plpgsql set search_path from current
as $$
#variable_conflict use_column
declare
  wanted text[] := array(select distinct t collate "C" from unnest(_topics) t order by 1);
  found_rows integer;
  old text[];
  r record;
  now_ timestamptz;
begin
  perform check_life(_life);
  loop
    insert into topics (topic, epoch, before, life)
      select t, new_epoch(), array[unborn(_word, _remember, 1) || ':0', unborn(_word, _remember, 0) || ':0'], _life
      from unnest(wanted) t where not exists (select from topics where topic = t) order by t
      on conflict do nothing;
    perform from topics where topic = any(wanted) order by topic for update;
    get diagnostics found_rows = row_count;
    -- Else one was forgotten in between.
    exit when found_rows = cardinality(wanted);
  end loop;
  old := array(select topic from topics where topic = any(wanted) and life <> _life);
  if old <> '{}' then
    perform renew(old, _life, _keeps, false);
  end if;
  -- Behind the locks: what has a later place is no older.
  now_ := clock_timestamp();
  for r in
    with batch as (
      select x.*, t.epoch, t."offset" as last, t.bytes, greatest(now_, t.published) as published, o.number as known, o."offset" as known_offset,
        max(x.number) over (partition by x.topic order by x.i rows between unbounded preceding and 1 preceding) as seen
      from unnest(_topics, _numbers, _messages, _texts, _keys, _extras)
        with ordinality as x (topic, number, message, is_text, key, extra, i)
      join topics t on t.topic = x.topic
      left join origins o on o.topic = x.topic and o.server = _server
    ), fresh as (
      select *, last + row_number() over (partition by topic order by i) as place,
        bytes + sum(octet_length(message) + 64) over (partition by topic order by i) as ends
      from batch where number > coalesce(greatest(known, seen), -1) or _server = '-'
    ), held as (
      insert into records (topic, "offset", message, is_text, key, extra, server, number, published, ends)
      select topic, place, message, is_text, key, extra, _server, number, published, ends from fresh
    ), newest as (
      select distinct on (topic) * from fresh order by topic, i desc
    ), taken as (
      insert into origins as o (topic, server, number, "offset", published)
      select topic, _server, number, place, published from newest where _server <> '-' order by topic
      on conflict (topic, server) do update
      set number = excluded.number, "offset" = excluded."offset", published = excluded.published
    ), bounds as (
      -- The first of what was held that is held on; what this batch has too much of goes with the next one.
      select n.topic, n.place, n.ends, n.published, t.first as began, coalesce(k."offset", t."offset" + 1) as first,
        coalesce(k.ends - octet_length(k.message) - 64, t.bytes) as freed
      from newest n join topics t on t.topic = n.topic left join lateral (
        select h."offset", h.ends, h.message from records h
        where h.topic = n.topic and h."offset" >= t.first and h."offset" > n.place - _count and h.ends > n.ends - _size
          and h.published > now_ - _age * interval '1 second'
        order by h."offset" limit 1
      ) k on true
    ), gone as (
      delete from records h using bounds b where h.topic = b.topic and h."offset" >= b.began and h."offset" < b.first
    ), moved as (
      update topics t set "offset" = b.place, bytes = b.ends, first = b.first, freed = b.freed,
        published = b.published, touched = now_
      from bounds b where t.topic = b.topic
    )
    select b.i, b.topic, b.epoch, b.number, b.message, b.is_text, b.key, b.extra, f.place,
      -- Not all that is held: those sent again may be thousands.
      case when f.place is not null then null when b.number = b.known then b.known_offset else (
        select h."offset" from records h where h.topic = b.topic and h."offset" > b.last - 100
        and h.server = _server and h.number = b.number) end as again
    from batch b left join fresh f on f.i = b.i order by b.i
  loop
    if r.place is not null then
      perform tell(r.topic, '=', r.place, encode(convert_to(json_build_array(
        r.epoch, _server, r.number, r.is_text, encode(r.key, 'base64'), r.extra)::text, 'UTF8'), 'base64')
        || ' ' || encode(r.message, 'base64'));
    end if;
    i := r.i;
    epoch := r.epoch;
    "offset" := coalesce(r.place, r.again, 0);
    return next;
  end loop;
end $$;
