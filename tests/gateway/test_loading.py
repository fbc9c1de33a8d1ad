"""Loading: each mistake in a file is told with its key, and all of them at once."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.gateway.config import AWS_LIMITS, ApiLimits, AppLimits, ConfigError
from rawws.gateway.loading import HOOK_EVENTS, load_config, read_config
from rawws.integrations.push import new_vapid_key
from tests.gateway.running import SECRET, app_file

API = """
[[api]]
id = "chat"
path = "/prod"
credentials = [{ key = "AKID", secret = "s" }]
"""

JWT = '{ algorithms = ["HS256"], key = "0123456789abcdef0123456789abcdef" }'

WHOLE = """
[gateway]
listen = ["127.0.0.1:8765", "[::1]:8765"]
admin = "127.0.0.1:9400"
admin_key = "0123456789abcdef"
backplane = "redis://127.0.0.1:6379/0"
prefix = "rawws"
trusted_proxies = ["10.0.0.0/8"]
engine = "epoll"
max_connections = 1000
drain = 5
history_count = 10
history_age = 1.5

[[app]]
id = "3"
keys = [{ key = "278d425bdf160c739803", secret = "env:APP3_SECRET" }, { key = "old", secret = "file:FILE" }]
origins = ["https://example.com"]
max_connections = 20_000
client_events = true
subscription_count = true
user_auth_timeout = 5
limits = { channels = 7, event_size = 100 }

  [[app.channel]]
  match = "presence-room-*"
  members = 500

  [[app.hook]]
  url = "http://backend:3000/hooks/events"
  events = ["channel_*", "cache_miss"]
  format = "pusher"
  channels = "presence-*"

[[api]]
id = "chat"
path = "/prod"
stage = "prod"
domain = "ws.example.com"
route_selection = "$request.body.action"
credentials = [{ key = "AKIDLOCAL", secret = "env:APP3_SECRET" }]
signing = "sign"
limits = { idle = 0 }
authorizer = { url = "http://backend:3000/auth", identity = ["route.request.querystring.token"] }

  [[api.route]]
  key = "$connect"
  url = "http://backend:3000/aws"
  [[api.route]]
  key = "$default"
  url = "http://backend:3000/raw"
  format = "http"
  headers = { connectionId = "context.connectionId" }
  timeout = 0.05
"""


def mistakes(text: str) -> list[str]:
    """Return what is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        read_config(text)
    return caught.value.mistakes


def test_a_whole_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP3_SECRET", "from the environment")
    (tmp_path / "secret").write_text("from a file\nand more\n")
    file = tmp_path / "gateway.toml"
    file.write_text(WHOLE.replace("FILE", str(tmp_path / "secret")))
    config = load_config(file)
    app, api = config.app("3"), config.api("chat")
    assert app is not None
    assert api is not None
    assert config.app_of_key("old") is app
    assert (config.app("4"), config.api("3"), config.app_of_key("new")) == (None, None, None)
    assert [app.secret_of(key) for key in ("278d425bdf160c739803", "old", "x")] == [
        "from the environment",
        "from a file",
        None,
    ]
    assert "from" not in repr(config)
    assert [app.most_members(name) for name in ("presence-room-1", "presence-x")] == [500, 100]
    assert (app.limits.channels, app.limits.batch) == (7, 10)
    assert app.hooks[0].events == {"channel_occupied", "channel_vacated", "cache_miss"}
    assert api.limits == ApiLimits(idle=0)
    assert [api.route(key) is not None for key in ("$connect", "$default", "x")] == [True, True, False]
    assert api.signing == ("sign",)
    assert config.engine == "epoll"


def test_what_is_left_out_has_a_default() -> None:
    config = read_config(app_file() + API)
    assert (config.listen, config.admin, config.backplane) == (("127.0.0.1:8765",), "", "none")
    assert config.engine is None
    assert config.apis[0].limits == AWS_LIMITS
    assert config.apps[0].rule_of("x") is None
    assert config.apps[0].limits == AppLimits(
        channels=100,
        client_events=10.0,
        requests=500.0,
        event_size=10 * 1024,
        event_channels=100,
        batch=10,
        members=100,
        user_info=1024,
    )


def test_a_hook_of_everything_needs_no_counts_and_one_of_counts_gets_them() -> None:
    hook = '[[app.hook]]\nurl = "http://a"\nevents = '
    assert read_config(app_file(f'{hook}["*"]')).apps[0].hooks[0].events == set(HOOK_EVENTS)
    counted = read_config(app_file(f'subscription_count = true\n{hook}["subscription_count"]'))
    assert counted.apps[0].hooks[0].events == {"subscription_count"}


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes(
        """
        [gateway]
        listen = ["127.0.0.1"]
        admn = "127.0.0.1:9400"
        drain = "soon"
        [[app]]
        id = "a/b"
        keys = []
        client_events = 1
        [[api]]
        path = "prod"
        credentials = [{ key = "k", secret = "" }]
        """
    ) == [
        "gateway.listen[0]: it is '127.0.0.1', allowed is HOST:PORT",
        "gateway.drain: it is a string, allowed is an integer",
        "app[0].id: it is 'a/b', allowed is 1 to 32 letters, digits, _ and -",
        'app[0].keys: there is none, needed is at least one: [{ key = "...", secret = "..." }]',
        "app[0].client_events: it is an integer, allowed is a boolean",
        "api[0].id: it is missing, needed is a string",
        "api[0].path: it is 'prod', allowed is \"\", or segments such as /prod",
        "api[0].credentials[0].secret: it is empty",
        "gateway.admn: there is no such key, did you mean admin?",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "app: there is none, needed is an [[app]] or an [[api]]"),
        ("a =", "the file is no TOML: "),
        ("app = 3", "app: it is an integer, allowed is an array"),
        ("app = [3]", "app[0]: it is an integer, allowed is a table"),
        ("zzz = 1\n" + app_file(), "zzz: there is no such key, allowed are api, app, gateway"),
        (app_file(head='[gateway]\nbackplane = "redis"'), "gateway.backplane: it is no URL"),
        (app_file(head='[gateway]\nbackplane = "ftp://u:pw@h"'), "gateway.backplane: it begins with 'ftp', allowed"),
        (app_file(head='[gateway]\nlisten = ["a:1", "b:2"]'), "gateway.listen[1]: the port is 2"),
        (app_file(head='[gateway]\nlisten = ["a:99999"]'), "gateway.listen[0]: the port is 99999"),
        (app_file(head="[gateway]\nlisten = [1]"), "gateway.listen[0]: it is an integer, allowed is a string"),
        (app_file(head='[gateway]\ntrusted_proxies = ["x"]'), "gateway.trusted_proxies[0]: it is 'x'"),
        (app_file(head='[gateway]\ntrusted_proxies = ["10.0.0.1/8"]'), "trusted_proxies[0]: it is '10.0.0.1/8'"),
        (app_file(head="[gateway]\nmax_connections = 0"), "gateway.max_connections: it is 0, allowed are 1 to"),
        (app_file(head="[gateway]\nhistory_age = true"), "gateway.history_age: it is a boolean"),
        (app_file(head="[gateway]\nhistory_age = 1979-05-27"), "gateway.history_age: it is a date or a time"),
        (app_file(head='[gateway]\nadmin_key = "env:NO_SUCH_VARIABLE"'), "the environment has no variable NO_SUCH"),
        (app_file(head='[gateway]\nadmin_key = "file:/no/such/file"'), "cannot read /no/such/file: No such file"),
        (app_file(head='[gateway]\nadmin_key = "file:/dev/null"'), "the first line of /dev/null is empty"),
        (app_file(head="[gateway]\nadmin_key = 3"), "gateway.admin_key: it is an integer, allowed is a string"),
        (app_file() + app_file(), "app[1].id: it is '3', and another one has that already"),
        (app_file() + app_file(), "app[1].keys[0].key: another app has it"),
        (app_file() + API.replace("chat", "3"), "api[0].id: it is '3', and another one has that already"),
        (API + API.replace("chat", "x"), "api[1].path: it is '/prod', and another one has that already"),
        (app_file('origins = ["example.com"]'), "app[0].origins[0]: it is 'example.com', allowed is a scheme"),
        # Of clients of rawws.v1, and of the API.
        (app_file('jwt = { key = "k" }'), "app[0].jwt.algorithms: it is missing, needed is an array"),
        (app_file('jwt = { algorithms = ["HS256"], key = "k" }'), "app[0].jwt.key: the secret has 1 bytes, needed are"),
        (app_file('jwt = { algorithms = ["none"], key = "k" }'), "app[0].jwt.algorithms: algorithms are ['none'], all"),
        (app_file('jwt = { algorithms = ["HS256", "RS256"], key = "k" }'), "allowed are those of secrets or those of"),
        (app_file('jwt = { algorithms = ["RS256"], key = "k" }'), "app[0].jwt.key: the key is none of RS256: "),
        (app_file('jwt = { algorithms = ["HS256"] }'), "app[0].jwt.key: there is none, needed is one of: a key, k"),
        (app_file('jwt = { algorithms = ["HS256"], keys = { a = 3 } }'), "app[0].jwt.keys.a: it is an integer, allowe"),
        (app_file('jwt = { algorithms = ["HS256"], key = "file:/no/file" }'), "app[0].jwt.key: cannot read /no/file:"),
        (app_file('jwt = { algorithms = ["HS256"], key = "" }'), "app[0].jwt.key: it is empty"),
        (app_file('jwt = { jwks = "https://a", algorithms = ["RS256"], key = "k" }'), "there are key and jwks, n"),
        (app_file('jwt = { jwks = "https://a", algorithms = ["HS256"] }'), "algorithms are HS256, allowed beside jwks"),
        (app_file('jwt = { jwks = "https://a", algorithms = ["RS257"] }'), "algorithms are RS257, allowed beside jwks"),
        (app_file('jwt = { jwks = "https://a", algorithms = [] }'), "app[0].jwt.algorithms: algorithms are none, all"),
        (app_file('jwt = { jwks = "ftp://a", algorithms = ["RS256"] }'), "app[0].jwt.jwks: it is no URL, allowed are"),
        (app_file('jwt = { jwks = "http://a", jwks_age = 5, algorithms = ["RS256"] }'), "jwks_age: it is 5, allowed a"),
        (app_file('calls = { connect = "ftp://a" }'), "app[0].calls.connect: it is no URL, allowed are those of"),
        (app_file("calls = { timeout = 3 }"), "app[0].calls.connect: there is none of connect, subscrib"),
        (app_file('calls = { subscribe = "http://a" }'), "app[0].calls: nobody can come in to be asked about, need"),
        (app_file('calls = { connect = "http://a" }'), "app[0].origins: there are none, needed beside calls.connect"),
        (app_file(f'jwt = {JWT}\ncalls = {{ connect = "http://a" }}'), "app[0].calls.connect: the app has jwt, which"),
        # What nothing would read.
        (app_file("limits = { messages = 5 }"), "app[0].limits.messages: there is no such key, "),
        (app_file('[[app.channel]]\nmatch = "x"\nhistory = { count = 5 }'), "history: there is no such key, "),
        (app_file('[[app.hook]]\nurl = "http://a"\nverify = true'), "app[0].hook[0].verify: there is no such key, "),
        (app_file('[[app.hook]]\nurl = "http://a"\nevents = ["user_mist"]'), "events[0]: it is 'user_mist', "),
        (
            app_file('[[app.hook]]\nurl = "http://a"\nevents = ["subscription_count"]'),
            "app[0].hook[0].events[0]: the app counts no subscribers, needed is its subscription_count = true",
        ),
        (app_file('[[app.hook]]\nurl = "ftp://a"'), "app[0].hook[0].url: it is no URL"),
        (app_file('[[app.hook]]\nurl = "http://a:x/"'), "app[0].hook[0].url: it is no URL"),
        (app_file().replace(SECRET, "whsec_?"), "app[0].keys[0].secret: it begins with whsec_, needed behind that is"),
        (app_file().replace(SECRET, "whsec_"), "app[0].keys[0].secret: it begins with whsec_, needed behind that is"),
        (API + 'signing = "whsec_A"', "api[0].signing: it begins with whsec_, needed behind that is base64"),
        (app_file("[[app.channel]]\nmembers = 3"), "app[0].channel[0].match: it is missing, needed is a string"),
        (app_file('[[app.channel]]\nmatch = "x"\nmembers = 1.5'), "app[0].channel[0].members: it is a float"),
        (app_file('[[app.hook]]\nurl = "http://a"\nevents = ["x"]'), "app[0].hook[0].events[0]: it is 'x', allowed"),
        (app_file('[[app.hook]]\nurl = "http://a"\nformat = "x"'), "app[0].hook[0].format: it is 'x', allowed are"),
        (API + '[[api.route]]\nkey = "$x"\nurl = "http://a"', "api[0].route[0].key: it is '$x', of those with $"),
        (API + '[[api.route]]\nkey="a"\nurl="http://a"\nheaders={"a b"="x"}', "route[0].headers.a b: it is no name"),
        (API + '[[api.route]]\nkey="a"\nurl="http://a"\nheaders={a=1}', "route[0].headers.a: it is an integer"),
        (API + 2 * '[[api.route]]\nkey="a"\nurl="http://a"\n', "api[0].route[1].key: it is 'a', and another route"),
        (API + "".join(f'[[api.route]]\nkey="{n}"\nurl="http://a"\n' for n in range(301)), "there are 301, allowed"),
        (API + 'stage = "a/b"', "api[0].stage: it is 'a/b', allowed is $default, or letters, digits, _ and -"),
        (API + 'limits = "azure"', "api[0].limits: it is 'azure', allowed are aws"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_key(text: str, mistake: str) -> None:
    assert any(mistake in told for told in mistakes(text)), mistakes(text)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="the file is not UTF-8: invalid start byte at byte 0"):
        load_config(tmp_path / "x")


def test_no_secret_stands_in_a_mistake() -> None:
    found = mistakes(app_file('zzz = "q"').replace('secret = "', 'secrets = "'))
    assert not any("7ad3773142a6692b25b8" in mistake for mistake in found)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@given(st.sampled_from(["listen", "admin", "drain", "prefix", "backplane"]), VALUES)
def test_whatever_stands_there_it_is_read_or_told(key: str, value: object) -> None:
    written = "true" if value is True else "false" if value is False else repr(value).replace("None", "''")
    with contextlib.suppress(ConfigError):
        read_config(app_file(head=f"[gateway]\n{key} = {written}"))


def test_all_that_is_called_over_http_is_told_where_the_package_for_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = app_file(
        f"""
origins = ["*"]
jwt = {{ algorithms = ["RS256"], jwks = "https://id.example/keys" }}
calls = {{ subscribe = "http://h/" }}
push = {{ web = {{ key = "{new_vapid_key()[0]}", subject = "mailto:a@example.com" }} }}
  [[app.hook]]
  url = "http://h/"
""",
        head='[gateway]\nbackplane = "redis://127.0.0.1"',
    )
    read_config(text + API)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError) as caught:
        read_config(text + API)
    said = "calls over HTTP need httpx2: pip install 'rawws[{}]'"
    extras = {"app[0].jwt.jwks": "gateway", "app[0].calls": "gateway", "app[0].hook": "gateway", "app[0].push": "push"}
    expected = [f"{key}: {said.format(extra)}" for key, extra in {**extras, "api[0]": "gateway"}.items()]
    assert caught.value.mistakes == expected
