create function enter(_server text, _topics text[], _ids text[], _infos text[]) returns void language plpgsql
set search_path from current
as $$
begin
  -- Without a lease, all are entered again when there is one.
  insert into roster (topic, server, id, info)
    select distinct on (x.topic, x.id) x.topic, _server, x.id, x.info
    from unnest(_topics, _ids, _infos) with ordinality as x (topic, id, info, i)
    where exists (select from leases l where l.server = _server) order by x.topic, x.id, x.i desc
    on conflict (topic, server, id) do update set info = excluded.info;
  perform tell(x.topic, '+', x.i, encode(convert_to(json_build_array(_server, x.id, x.info)::text, 'UTF8'), 'base64'))
    from unnest(_topics, _ids, _infos) with ordinality as x (topic, id, info, i);
end $$;

create function part(_server text, _topics text[], _ids text[]) returns void language plpgsql
set search_path from current
as $$
begin
  delete from roster r using unnest(_topics, _ids) as x (topic, id)
    where r.topic = x.topic and r.server = _server and r.id = x.id;
  perform tell(x.topic, '-', x.i, encode(convert_to(json_build_array(_server, x.id, '')::text, 'UTF8'), 'base64'))
    from unnest(_topics, _ids) with ordinality as x (topic, id, i);
end $$;

create function presence(_topics text[]) returns table (i bigint, server text, id text, info text) language sql
set search_path from current
as $$
  select x.i, r.server, r.id, r.info from unnest(_topics) with ordinality as x (topic, i)
  join roster r on r.topic = x.topic join leases l on l.server = r.server where l.until > clock_timestamp()
$$;

-- Renew a server's lease, and find those that ran out. Tells whether the lease is a new one.
create function beat(_server text, _lease double precision, _word text) returns boolean language plpgsql
set search_path from current
as $$
declare
  anew boolean;
begin
  perform pg_notify(current_schema() || '.servers', '-' || gone.server) from (
    select l.server from leases l where l.until < clock_timestamp() order by l.server for update skip locked) gone;
  delete from leases where server in (
    select l.server from leases l where l.until < clock_timestamp() order by l.server for update skip locked);
  insert into leases (server, until) values (_server, clock_timestamp() + _lease * interval '1 second')
    on conflict (server) do update set until = excluded.until returning xmax = 0 into anew;
  perform pg_notify(current_schema() || '.servers', '=' || _server || ' ' || _word);
  return anew;
end $$;

create function leave(_server text) returns void language plpgsql set search_path from current
as $$
begin
  delete from leases where server = _server;
  perform pg_notify(current_schema() || '.servers', '-' || _server);
end $$;
