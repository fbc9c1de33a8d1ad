-- For who is no hub: publish a message that is text, bytes or JSON, and return its cursor. `key` says what it is about,
-- `event` is the name of an event.
create function publish_one(_topic text, _message bytea, kind text, _key text, _event text)
returns text language plpgsql set search_path from current
as $$
declare
  hub about;
  run record;
  place record;
  extra text := concat_ws(',', case when kind = 'json' then '"json":true' end, '"event":' || to_json(_event));
begin
  if coalesce(octet_length(_topic), 0) not between 1 and 255 or _topic ~ '[[:cntrl:]]' or _topic = '~rawws/control' then
    raise 'the topic must have 1 to 255 printable bytes of UTF-8' using errcode = 'invalid_parameter_value';
  elsif octet_length(_key) > 255 then
    raise 'the key must have up to 255 bytes of UTF-8' using errcode = 'invalid_parameter_value';
  elsif octet_length(_event) not between 1 and 255 or _event ~ '[[:cntrl:]]' then
    raise 'the event must have 1 to 255 printable bytes of UTF-8' using errcode = 'invalid_parameter_value';
  elsif _message is null then
    raise 'the message is null' using errcode = 'null_value_not_allowed';
  end if;
  -- How much is held of a topic is what the hub said that came last.
  select * into hub from about;
  if hub.remember is null then
    raise 'no hub was here yet' using errcode = 'object_not_in_prerequisite_state';
  end if;
  select * into run from engine();
  select * into place from publish_all('-', run.life, run.keeps, run.word, hub.remember, hub.count, hub.size, hub.age,
    array[_topic], array[0], array[_message], array[kind <> 'bytes'], array[convert_to(_key, 'UTF8')], array[extra]);
  return place.epoch || ':' || place."offset";
end $$;

create function publish(topic text, message text, key text default null, event text default null)
returns text language sql set search_path from current
as $$ select publish_one(topic, convert_to(message, 'UTF8'), 'text', key, event) $$;

create function publish(topic text, message bytea, key text default null, event text default null)
returns text language sql set search_path from current
as $$ select publish_one(topic, message, 'bytes', key, event) $$;

create function publish(topic text, message jsonb, key text default null, event text default null)
returns text language sql set search_path from current
as $$ select publish_one(topic, convert_to(message::text, 'UTF8'), 'json', key, event) $$;
