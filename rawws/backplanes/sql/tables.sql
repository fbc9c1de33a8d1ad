-- What a PostgreSQL has of the topics of rawws: version 1, in a schema of its own, which is the search_path here.

create table about (
  version integer not null,
  -- A word that lives as long as these tables.
  word text not null default gen_random_uuid()::text,
  -- What the hub that came last said, for programs that are none: seconds, publications, bytes, seconds.
  remember double precision,
  count bigint,
  size bigint,
  age double precision
);

-- One word. A crash, a standby that takes over and a restored backup empty this table; a clean restart does not.
create unlogged table life (one boolean primary key default true check (one), word text not null);

create table topics (
  topic text collate "C" primary key,
  epoch text not null,
  -- That of the last publication; `began` is the one at which the epoch began.
  "offset" bigint not null default 0,
  began bigint not null default 0,
  -- Epochs that went over into this one, with their last offsets: 'epoch:offset'.
  before text[] not null,
  -- The run of the engine in which the epoch began.
  life text not null,
  -- The first publication that is held; what was published in all, and what is not held any more of that, in bytes.
  first bigint not null default 1,
  bytes bigint not null default 0,
  freed bigint not null default 0,
  published timestamptz not null default clock_timestamp(),
  touched timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

create table records (
  topic text collate "C",
  "offset" bigint,
  message bytea not null,
  is_text boolean not null,
  -- Bytes, for text has no zero here.
  key bytea,
  extra text not null,
  server text not null,
  number bigint not null,
  published timestamptz not null,
  -- The bytes of the topic up to here.
  ends bigint not null,
  primary key (topic, "offset")
);
-- Compressing takes more time than it saves.
alter table records alter column message set storage external;

-- What each server published last to a topic.
create table origins (
  topic text collate "C" references topics on delete cascade,
  server text,
  number bigint not null,
  "offset" bigint not null,
  published timestamptz not null,
  primary key (topic, server)
) with (fillfactor = 50);

create table leases (server text primary key, until timestamptz not null);

create table roster (
  topic text collate "C",
  server text references leases on delete cascade,
  id text,
  info text not null,
  primary key (topic, server, id)
);
create index on roster (server);

-- Which run of the engine this is: the history of its data, and what a crash or a restart changes; and whether what is
-- answered is on the disk.
create function engine(out life text, out keeps boolean, out word text) language plpgsql set search_path from current
as $$
begin
  insert into life (word) select gen_random_uuid()::text where not exists (select from life) on conflict do nothing;
  select c.system_identifier || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' '
      || l.word || '.' || extract(epoch from pg_postmaster_start_time())
    into engine.life from pg_control_system() c, life l;
  keeps := current_setting('fsync')::boolean and current_setting('full_page_writes')::boolean
    and current_setting('synchronous_commit') <> 'off';
  -- A restart that loses nothing is none to topics that nothing was published to.
  select case when keeps then a.word else a.word || engine.life end into engine.word from about a;
end $$;

-- Whoever found another run when it came must find out anew what is lost: the tables were made again, or it crashed.
create function check_life(_life text) returns void language plpgsql
as $$
begin
  if not exists (select from life where strpos(_life, ' ' || word || '.') > 0) then
    raise 'this is another run of the PostgreSQL than the one that was reached' using errcode = 'RW001';
  end if;
end $$;

create function new_epoch() returns text language sql volatile
as $$ select left(replace(gen_random_uuid()::text, '-', ''), 12) $$;

-- The epoch of topics that were never published to: its name changes with each half of the time for which a place is
-- remembered, so that nobody goes on from one behind which a place came and was forgotten.
create function unborn(word text, remember double precision, ago integer) returns text language sql volatile
as $$
  select left(encode(sha256(convert_to(
    word || ' ' || floor(extract(epoch from clock_timestamp()) * 2 / remember) - ago, 'UTF8')), 'hex'), 12)
$$;

-- The last offset of an epoch that a topic is in, or was in; null for one of which that is not known.
create function last_offset(t topics, asked text) returns bigint language sql immutable
as $$
  select case when asked = t.epoch then t."offset" else
    (select split_part(b, ':', 2)::bigint from unnest(t.before) b where split_part(b, ':', 1) = asked limit 1) end
$$;

-- Begin epochs of their own for topics that this run of the engine has not had yet: those before go over into them
-- where nothing can be lost. Whoever was ahead saw what is lost (`lost`): nobody goes over then.
create function renew(_topics text[], _life text, _keeps boolean, lost boolean) returns void language sql
as $$
  update topics t set epoch = new_epoch(), life = _life,
    began = case when t.life = _life then t.began else t."offset" end,
    before = case when _keeps and not lost and split_part(t.life, ' ', 1) = split_part(_life, ' ', 1)
      -- The seven epochs before, and this one.
      then (t.before || (t.epoch || ':' || t."offset"))[greatest(1, cardinality(t.before) - 6):] else '{}' end
    where t.topic = any(_topics) and (t.life <> _life or lost)
$$;

-- Tell all who listen of a topic. A notification takes 8,000 bytes: what is larger goes in pieces, one behind the other.
-- Each has a number of its own, for PostgreSQL drops what is equal in one transaction.
create function tell(_topic text, kind text, number bigint, body text) returns void language plpgsql
as $$
declare
  channel text := current_schema() || '.' || encode(substring(sha256(convert_to(_topic, 'UTF8')) for 1), 'hex');
  pieces integer := (length(body) - 1) / 7500;
begin
  for piece in 0..pieces loop
    perform pg_notify(channel, case when piece = pieces then kind else '.' end || number || ' ' || piece || ' ' || _topic
      || E'\n' || substr(body, piece * 7500 + 1, 7500));
  end loop;
end $$;
