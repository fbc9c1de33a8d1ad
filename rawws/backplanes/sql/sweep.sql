-- Have places that are followed be remembered.
create function touch(_topics text[]) returns void language plpgsql set search_path from current
as $$
begin
  perform from topics where topic = any(_topics) order by topic for update;
  update topics set touched = clock_timestamp() where topic = any(_topics);
end $$;

-- Let go of what is too old, and of what all topics together have too much of; and forget topics that nobody came to.
create function sweep(_remember double precision, _age double precision, _total bigint) returns void language plpgsql
set search_path from current
as $$
declare
  emptied text[];
  old timestamptz := clock_timestamp() - _remember * interval '1 second';
  expired timestamptz := clock_timestamp() - _age * interval '1 second';
begin
  if not pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.sweep', 0)) then
    return;
  end if;
  with held as (
    select topic, sum(bytes - freed) over (order by published desc, topic) as size from topics where bytes > freed
  ), chosen as (
    select t.topic from topics t join held h on h.topic = t.topic
    where t.published < expired or h.size > _total order by t.topic for update of t skip locked
  ), done as (
    update topics t set first = t."offset" + 1, freed = t.bytes from chosen c where t.topic = c.topic returning t.topic
  )
  select array_agg(topic) into emptied from done;
  delete from records r using topics t where t.topic = any(emptied) and r.topic = t.topic and r."offset" < t.first;
  with chosen as (
    select topic from topics where touched < old and published < old order by topic for update skip locked
  ), done as (
    delete from topics t using chosen c where t.topic = c.topic returning t.topic
  )
  delete from records r using done d where r.topic = d.topic;
  delete from origins where published < old;
end $$;
