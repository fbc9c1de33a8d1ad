-- Where topics are, and what is held behind a place of each; of all with null for the epoch. A topic that was never
-- published to has a null for its life, and its two names. A row for each record, or one without.
create function history(
  _life text, _keeps boolean, _word text, _remember double precision, _count bigint, _size bigint, _age double precision,
  _topics text[], _epochs text[], _offsets bigint[]
) returns table (
  i bigint, epoch text, "offset" bigint, began bigint, before text[], last bigint,
  place bigint, message bytea, is_text boolean, key bytea, extra text, server text, number bigint, age double precision
) language plpgsql set search_path from current
as $$
#variable_conflict use_column
declare
  old text[];
  ahead text[];
  now_ timestamptz;
begin
  perform check_life(_life);
  select array_agg(t.topic) filter (where t.life <> _life),
      array_agg(t.topic) filter (where t.life = _life and x.place > last_offset(t, x.epoch))
    into old, ahead
    from unnest(_topics, _epochs, _offsets) as x (topic, epoch, place) join topics t on t.topic = x.topic
    where t.life <> _life or x.place > last_offset(t, x.epoch);
  if old is not null or ahead is not null then
    perform from topics where topic = any(old || ahead) order by topic for update;
    perform renew(old, _life, _keeps, false);
    -- Whoever is ahead saw what is lost: so all may have missed it.
    ahead := array(select distinct t.topic
      from unnest(_topics, _epochs, _offsets) as x (topic, epoch, place) join topics t on t.topic = x.topic
      where t.topic = any(old || ahead) and x.place > last_offset(t, x.epoch));
    perform renew(ahead, _life, _keeps, true);
  end if;
  -- One for all: what has a later place is no older.
  now_ := clock_timestamp();
  return query
    select x.i, coalesce(t.epoch, unborn(_word, _remember, 0)), coalesce(t."offset", 0), coalesce(t.began, 0),
      coalesce(t.before, array[unborn(_word, _remember, 1) || ':0']),
      case when x.epoch is not null then coalesce(last_offset(t, x.epoch),
        case when t.topic is null and x.epoch in (unborn(_word, _remember, 0), unborn(_word, _remember, 1)) then 0 end)
      end,
      r."offset", r.message, r.is_text, r.key, r.extra, r.server, r.number,
      extract(epoch from now_ - r.published)::double precision
    from unnest(_topics, _epochs, _offsets) with ordinality as x (topic, epoch, place, i)
    left join topics t on t.topic = x.topic
    left join records r on r.topic = t.topic and r."offset" >= t.first and r."offset" > t."offset" - _count
      and r.ends > t.bytes - _size and r.published > now_ - _age * interval '1 second'
      and (x.epoch is null or (r."offset" > x.place and x.place <= last_offset(t, x.epoch)))
    order by x.i, r."offset";
end $$;
