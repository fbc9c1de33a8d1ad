"""The options of the client: what type checkers know of them, and that every documented kind of value works."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import rawws
from rawws.client.options import (
    ConnectKeywords,
    ConnectOptions,
    EventsKeywords,
    EventsOptions,
    HubKeywords,
    HubOptions,
)
from tests.client.peers import echo, port, tls
from tests.client.sources import answer, source, stream
from tests.server.peers import serve, set_at_end

HOST: Final = "127.0.0.1"
HUGE: Final = 1 << 70


# -- their types


@pytest.mark.parametrize(
    ("options", "keywords"),
    [(ConnectOptions, ConnectKeywords), (EventsOptions, EventsKeywords), (HubOptions, HubKeywords)],
)
def test_the_keywords_that_type_checkers_know_are_the_options(options: Any, keywords: Any) -> None:
    known = {name: reference.__forward_arg__ for name, reference in keywords.__annotations__.items()}
    assert known == {option.name: option.type for option in dataclasses.fields(options) if option.init}


def test_an_option_that_does_not_exist_is_an_error_of_types_and_at_run_time() -> None:
    # Were these no errors to mypy, the comments would be.
    with pytest.raises(TypeError, match=r"^connect\(\) .*'prot'"):
        rawws.connect("ws://a.example/", prot=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^connect\(\) .*'prot'"):
        rawws.unix_connect("/a", prot=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^events\(\) .*'prot'"):
        rawws.events("http://a.example/", prot=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^HubClient\(\) .*'prot'"):
        rawws.HubClient("ws://a.example/", prot=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="http2 is 'yes', allowed are True and False"):
        rawws.connect("wss://a.example/", http2="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ping_interval is str, allowed are numbers above 0 and None"):
        rawws.connect("ws://a.example/", ping_interval="x")  # type: ignore[arg-type]


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        rawws.connect("ws://a.example/").options.max_size = 1  # type: ignore[misc]


# -- their values


class Silent(rawws.Handler):
    """It waits for nothing."""


def last(_ws: rawws.WebSocket, offered: list[str]) -> str | None:
    return offered[-1] if offered else None


def waits() -> Iterator[float]:
    yield 0.0


def cases(tried: dict[str, list[Any]]) -> list[Any]:
    """Return the cases of a test, one for each value."""
    return [pytest.param(name, value, id=f"{name}-{at}") for name in tried for at, value in enumerate(tried[name])]


# Every option but those that say where to connect, with each kind of value that the page names.
SHARED: Final[dict[str, list[Any]]] = {
    "additional_headers": [None, {"X-A": "b"}, [("X-A", "b"), ("X-A", "c")], rawws.Headers([("X-A", "b")])],
    "user_agent_header": [None, "mine"],
    "proxy": [None, True],
    "reconnect_delays": [waits],
    "on_retry": [None, lambda _error, _seconds: None],
    "open_timeout": [None, 5, 5.5],
    "max_size": [None, 1, 100, sys.maxsize, HUGE],
    "ssl": [None, False],
    "server_hostname": [None, "a.example"],
    "http2": [False, True],
    "local_addr": [None, (HOST, 0)],
    "path": [None],
    "logger": [None, logging.getLogger("mine")],
}
CONNECT: Final[dict[str, list[Any]]] = {
    **SHARED,
    "handler": [None, Silent()],
    "origin": [None, "http://a.example"],
    "subprotocols": [None, [], ["a", "b"], ("a",)],
    "compression": [None, "deflate", rawws.Compression(level=9, threshold=0)],
    "process_exception": [lambda error: error],
    "close_timeout": [None, 5, 0.5],
    "ping_interval": [None, 20, 0.5],
    "ping_timeout": [None, 20, 0.5],
    "hard_limit": [None, 1 << 16, sys.maxsize, HUGE],
    "sock": [None],
    "engine": [None, "asyncio", "epoll"],
}
EVENTS: Final[dict[str, list[Any]]] = {
    **SHARED,
    "max_size": [None, 100, sys.maxsize, HUGE],
    "last_event_id": ["", "7"],
    "reconnect": [True, False],
    "read_timeout": [None, 5, 0.5],
}


@pytest.mark.parametrize(("options", "tried"), [(ConnectOptions, CONNECT), (EventsOptions, EVENTS)])
def test_every_option_is_tried(options: Any, tried: dict[str, list[Any]]) -> None:
    assert {option.name for option in dataclasses.fields(options) if option.init} == set(tried)
    optional = {option.name for option in dataclasses.fields(options) if "None" in option.type.split(" | ")}
    assert {name for name, values in tried.items() if None in values} == optional - {"deflate"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name in CONNECT
        for number, value in enumerate(CONNECT[name])
    ],
)
async def test_connect_takes_every_kind_of_value(name: str, value: Any) -> None:
    options: Any = {name: value}
    async with serve(echo, origins="*", select_subprotocol=last) as server:
        async with rawws.connect(f"ws://{HOST}:{port(server)}/", **options) as ws:
            await ws.send("x")
            if name != "handler" or value is None:
                assert await ws.recv() == "x"
        assert ws.close_code == 1000


@pytest.mark.parametrize(("name", "value"), cases(EVENTS))
async def test_events_takes_every_kind_of_value(name: str, value: Any) -> None:
    options: Any = {name: value}
    async with source(stream(b"data: x\n\n")) as server, rawws.events(server.url, **options) as feed:
        assert (await anext(feed)).data == "x"


@pytest.mark.parametrize("value", [None, HUGE], ids=["none", "huge"])
async def test_without_a_hard_limit_a_slow_server_is_left_alone(value: int | None) -> None:
    held = asyncio.Event()

    async def hold(ws: rawws.WebSocket) -> None:
        await held.wait()
        for _ in range(4):
            await ws.recv()

    async with serve(hold, max_size=None) as server, set_at_end(held):
        async with rawws.connect(f"ws://{HOST}:{port(server)}/", hard_limit=value, compression=None) as ws:
            for _ in range(4):
                ws.send(bytes(1 << 20))
            assert ws.ready_state is rawws.State.OPEN
            held.set()
        assert ws.close_code == 1000


async def test_the_options_that_say_where_to_connect_take_every_kind_of_value(tmp_path: Path) -> None:
    part = tls()
    path = str(tmp_path / "socket")
    async with serve(echo, ssl=part.server) as server, rawws.serve(echo, path=path):
        uri = f"wss://{HOST}:{port(server)}/"
        async with rawws.connect(uri, ssl=part.client, server_hostname="localhost"):
            pass
        with pytest.raises(ssl.SSLCertVerificationError):
            await rawws.connect(uri, ssl=True)
        async with rawws.connect("ws://a.example/", path=path), rawws.unix_connect(path, hard_limit=None):
            pass
        with socket.create_connection((HOST, port(server))) as connected:
            connected.setblocking(False)
            async with rawws.connect(uri, sock=connected, ssl=part.client, server_hostname="localhost"):
                pass
    async with source(answer(b"HTTP/1.1 204 No Content\r\n\r\n"), path=tmp_path / "events") as server_of_events:
        feed = rawws.events("http://a.example/", path=str(tmp_path / "events"))
        assert [event async for event in feed] == []
        assert len(server_of_events.requests) == 1
