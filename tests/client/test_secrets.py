"""A password in a URL stands in no error, no log and no repr, wherever the URL goes."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rawws
import rawws.sync
from rawws import testing
from rawws.backplanes.kafka import KafkaBackplane
from rawws.backplanes.kafka_client import kafka_servers
from rawws.backplanes.nats import NatsBackplane
from rawws.backplanes.postgres import PostgresBackplane
from rawws.backplanes.redis import RedisBackplane
from rawws.backplanes.redis_cluster import RedisClusterBackplane
from rawws.client.dialing import TransportOptions
from rawws.client.options import ConnectOptions
from rawws.client.proxies import parse_proxy
from rawws.client.uri import HTTP, parse_uri
from rawws.net.logs import without_userinfo
from tests.client.peers import scripted
from tests.processes import LOOPBACK, ROOT, free_port

PASSWORD = "sesame-7f3a"
# In base64, as RFC 7617 has it.
BASIC = "c2VzYW1lLTdmM2E"
SECRETS = (PASSWORD, BASIC, "ali-baba")
USER = f"ali-baba:{PASSWORD}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://host/path?a=b", "ws://host/path?a=b"),
        ("host:80", "host:80"),
        ("http://host/@ada", "http://host/@ada"),
        (f"ws://{USER}@host:80/path", "ws://***@host:80/path"),
        (f"{USER}@proxy:3128", "***@proxy:3128"),
        (f"//{USER}@host", "//***@host"),
        (f"redis://:{PASSWORD}@host:6379/0", "redis://***@host:6379/0"),
        (f"redis://{PASSWORD}@host", "redis://***@host"),
        # What should have been encoded, and was not.
        (f"ws://u:a@{PASSWORD}@host", "ws://***@host"),
        (f"ws://u:a/{PASSWORD}@host", "ws://***@host"),
        (f"ws://u:a?{PASSWORD}@host", "ws://***@host"),
        (f"ws://u:a#{PASSWORD}@host", "ws://***@host"),
        (f"ws://u:a {PASSWORD}\n@host", "ws://***@host"),
        (f"ws://user:{PASSWORD}@", "ws://***@"),
    ],
)
def test_a_url_is_shown_without_its_user_and_password(url: str, shown: str) -> None:
    assert without_userinfo(url) == shown


def all_of(error: BaseException) -> str:
    """Return what anybody may print of an error, and of those that it came from."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


WRONG: list[tuple[str, Callable[[str], object]]] = [
    (f"http://{USER}@host/", rawws.connect),
    (f"ws://{USER}@host/#part", rawws.connect),
    (f"ws://{USER}@host:port/", rawws.connect),
    (f"ws://{USER}@host:99999/", rawws.connect),
    (f"ws://ali-baba:a/{PASSWORD}@host/", rawws.connect),
    (f"ws://ali-baba:{PASSWORD}[@host/", rawws.connect),
    (f"ws://{USER}℀@host/", rawws.connect),
    (f"ws://{USER}@/", rawws.connect),
    (f"ws://{USER} @host/", rawws.connect),
    (f"ws://{USER}@{'ü' * 80}/", rawws.connect),
    (f"ws://{USER}@host/", rawws.events),
    (f"http://{USER}@host:port/", rawws.events),
    (f"ftp://{USER}@proxy", parse_proxy),
    (f"http://{USER}@proxy:port", parse_proxy),
    (f"{USER}@proxy:port", parse_proxy),
    (f"{USER}@", parse_proxy),
    (f"http://{USER}\t@proxy", parse_proxy),
    (f"http://{USER}@host", lambda url: testing.Host(None).connect(url)),  # type: ignore[arg-type]
    (f"http://{USER}@host/api?a", lambda url: rawws.sync.publish(url, "t", "x", key="k" * 16)),
    (f"ftp://{USER}@host/api", lambda url: rawws.sync.publish(url, "t", "x", key="k" * 16)),
    (f"http://{USER}@host", RedisBackplane),
    (f"redis://{USER}@host:port", RedisBackplane),
    (f"redis://ali-baba:a/{PASSWORD}@host:port", RedisBackplane),
    (f"redis://ali-baba:{PASSWORD}[@host", RedisBackplane),
    (f"redis+cluster://{USER}@host", RedisBackplane),
    (f"redis+sentinel://{USER}@a,b", RedisBackplane),
    (f"redis+sentinel://{USER}@a,b:port/mymaster", RedisBackplane),
    (f"redis+sentinel://a,/mymaster?sentinel_password={PASSWORD}", RedisBackplane),
    (f"redis://{USER}@host", RedisClusterBackplane),
    (f"redis+cluster://{USER}@host,b:99999", RedisClusterBackplane),
    (f"redis+cluster://ali-baba:{PASSWORD}[@host,b/3", RedisClusterBackplane),
    (f"http://{USER}@host", NatsBackplane),
    (f"nats://{USER}@host:port", NatsBackplane),
    (f"nats://one:4222,nats://ali-baba:a/{PASSWORD}@host:4222", NatsBackplane),
    (f"nats://ali-baba:{PASSWORD}[@host", NatsBackplane),
    (f"http://{USER}@host", PostgresBackplane),
    (f"postgresql://{USER}@host:port", PostgresBackplane),
    (f"postgresql://ali-baba:a/{PASSWORD}@host:port", PostgresBackplane),
    (f"postgresql://ali-baba:{PASSWORD}[@host", PostgresBackplane),
    (f"http://{USER}@host", KafkaBackplane),
    (f"kafka://{USER}@host:port", KafkaBackplane),
    (f"kafka://ali-baba:a/{PASSWORD}@host:port", KafkaBackplane),
    (f"kafka://{USER}@host?mechanism=x", KafkaBackplane),
    (f"kafka://{USER}@host/a:b", KafkaBackplane),
]


@pytest.mark.parametrize(("url", "take"), WRONG)
def test_no_error_about_a_url_says_its_password(url: str, take: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="is") as caught:
        take(url)
    assert [secret for secret in SECRETS if secret in all_of(caught.value)] == []


def test_no_repr_says_a_password() -> None:
    uri = f"wss://{USER}@host/"
    proxy = f"http://{USER}@proxy"
    connecting = rawws.connect(uri, proxy=proxy, additional_headers={"Authorization": f"Basic {BASIC}"})
    found = [
        connecting, connecting.target, connecting.transport, connecting.options, parse_uri(uri), parse_proxy(proxy),
        parse_proxy(f"socks5://{USER}@proxy"), TransportOptions(proxy=proxy), rawws.events(f"https://{USER}@host/"),
        parse_uri(f"http://{USER}@host/", HTTP), ConnectOptions(proxy=proxy, additional_headers=[("X-Key", PASSWORD)]),
        RedisBackplane(f"redis+sentinel://{USER}@host/mymaster?sentinel_password={PASSWORD}"),
        RedisClusterBackplane(f"redis+cluster://{USER}@host"),
        RedisBackplane(f"redis://{USER}@host"), rawws.Hub(backplane=RedisBackplane(f"redis://{USER}@host")),
        NatsBackplane(f"nats://{USER}@host"), RedisBackplane(f"redis://{USER}@host"), rawws.Hub(backplane=RedisBackplane(f"redis://{USER}@host")),
        PostgresBackplane(f"postgresql://{USER}@host"), RedisBackplane(f"redis://{USER}@host"), rawws.Hub(backplane=RedisBackplane(f"redis://{USER}@host")),
        KafkaBackplane(f"kafka://{USER}@host"), kafka_servers(f"kafka://{USER}@host"),
    ]  # fmt: skip
    for one in found:
        assert [secret for secret in SECRETS if secret in f"{one!r} {one} {[one]}"] == []
    assert repr(parse_uri(uri)) == "<Target wss://***@host/>"
    assert repr(parse_proxy(proxy)) == "<Proxy http://***@proxy:80>"


@contextlib.contextmanager
def all_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    texts += [logging.Formatter().format(record) for record in caplog.records]


async def test_no_failure_to_connect_says_a_password(caplog: pytest.LogCaptureFixture) -> None:
    dead = free_port()
    errors: list[BaseException] = []
    with all_logged(caplog) as texts:
        for uri, options in (
            (f"ws://{USER}@{LOOPBACK}:{dead}/", {}),
            (f"ws://{USER}@{LOOPBACK}:{dead}/", {"ssl": True}),
            (f"wss://{USER}@{LOOPBACK}:{dead}/", {"ssl": False}),
            (f"ws://{USER}@{LOOPBACK}:1/", {"proxy": f"http://{USER}@{LOOPBACK}:{dead}"}),
            (f"ws://{USER}@{LOOPBACK}:1/", {"proxy": f"https://{USER}@{LOOPBACK}:{dead}"}),
            (f"ws://{USER}@{LOOPBACK}:1/", {"proxy": f"socks5://{USER}@{LOOPBACK}:{dead}"}),
            (f"ws://{USER}@{LOOPBACK}:1/", {"proxy": f"http://{USER}@{LOOPBACK}:port"}),
        ):
            waits: dict[str, Any] = {"reconnect_delays": lambda: iter([0.0]), "on_retry": lambda *_: None}
            try:
                async for _ in rawws.connect(uri, **{"proxy": None, **waits, **options}):
                    pass
            except (OSError, ValueError) as error:
                errors.append(error)
    assert len(errors) == 7
    assert any("connecting to" in text for text in texts)
    assert [secret for secret in SECRETS for text in [*map(all_of, errors), *texts] if secret in text] == []


@pytest.mark.parametrize(
    "location", ["http://{user}@127.0.0.1:1/", "ws://{user}@host:port/", "ws://{user}@127.0.0.1:1/#x", "{own}"]
)
async def test_no_redirect_says_a_password(location: str, caplog: pytest.LogCaptureFixture) -> None:
    def redirect(_: Any) -> bytes:
        target = location.format(user=USER, own=f"ws://{USER}@{LOOPBACK}:{server.port}/")
        return f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()

    with all_logged(caplog) as texts:
        async with scripted(redirect) as server:
            with pytest.raises((rawws.HandshakeError, OSError)) as caught:
                await rawws.connect(f"ws://{USER}@{LOOPBACK}:{server.port}/", open_timeout=5, proxy=None)
    assert [secret for secret in SECRETS for text in [all_of(caught.value), *texts] if secret in text] == []


@pytest.mark.parametrize(
    "words",
    [
        ["connect", f"ws://{USER}@{LOOPBACK}:1/"],
        ["send", f"{USER}@{LOOPBACK}:1", "x"],
        ["connect", f"http://{USER}@{LOOPBACK}/"],
        ["publish", f"http://{USER}@{LOOPBACK}:1/api", "t", "x", "--key", "k" * 16],
        ["publish", f"http://{USER}@{LOOPBACK}:1/api?a", "t", "x", "--key", "k" * 16],
        ["subscribe", f"http://{USER}@{LOOPBACK}:1/api", "t", "--key", "k" * 16],
        ["connect", f"ws://{LOOPBACK}:1/", "--proxy", f"http://{USER}@{LOOPBACK}:1"],
        ["connect", f"ws://{LOOPBACK}:1/", "--proxy", f"{USER}@{LOOPBACK}:port"],
    ],
)
def test_no_command_says_a_password(words: list[str]) -> None:
    command = [sys.executable, "-m", "rawws", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("rawws: ")
    assert [secret for secret in SECRETS if secret in done.stdout + done.stderr] == []
