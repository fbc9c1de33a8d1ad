"""Both twins of HTTP/2 are equal: same octets, same events, same errors, same answers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws.protocol.http2
from fuzz.twins import COMPILED, INTERPRETED, Twin, is_compiled
from rawws.errors import Http2Error, RawwsError
from rawws.protocol.connection import Role
from tests.protocol import strategies
from tests.protocol.http2_wire import PREFACE, describe, outcome, settings
from tests.protocol.test_http2_differential import wire

MODULES = tuple(
    f"rawws.protocol.{name}"
    for name in (
        *("hpack", "http2", "http2_blocks", "http2_events", "http2_frames", "http2_limits", "http2_messages"),
        *("http2_sending", "http2_streams", "huffman"),
    )
)

pytestmark = pytest.mark.skipif(
    not any(map(is_compiled, MODULES)), reason="this process runs the interpreted twin only"
)


def test_the_twins_are_one_compiled_and_one_interpreted() -> None:
    assert all(map(is_compiled, MODULES)), "half a build"
    assert not is_compiled(INTERPRETED.prefix + "rawws.protocol.http2")
    assert INTERPRETED.load("rawws.protocol.http2").Http2Endpoint is not rawws.protocol.http2.Http2Endpoint


@pytest.mark.parametrize("name", MODULES)
def test_both_twins_have_the_same_public_names(name: str) -> None:
    pure, fast = INTERPRETED.load(name), sys.modules[name]
    made_here = {
        key: value
        for key, value in vars(pure).items()
        if getattr(value, "__module__", "") == pure.__name__ and key[0] != "_"
    }
    assert made_here
    for key, value in made_here.items():
        methods = {member for member, kind in vars(value).items() if callable(kind) and member[0] != "_"}
        assert methods <= set(dir(getattr(fast, key))), key


def make(twin: Twin, role: Role, offer: bool, window: int) -> Any:
    module = twin.load("rawws.protocol.http2")
    its_role = twin.load("rawws.protocol.connection").Role[role.name]
    limits = module.DEFAULT_HTTP2_LIMITS._replace(window=window, max_streams=3)
    return module.Http2Endpoint(its_role, limits, connect_protocol=offer)


def request(twin: Twin, method: str) -> Any:
    http11 = twin.load("rawws.protocol.http11")
    return http11.Request(method, "/", http11.Headers({"Host": "a"}))


def headers(twin: Twin) -> Any:
    return twin.load("rawws.protocol.http11").Headers({"X-A": "b"})


@strategies.examples(300)
@given(
    data=st.data(),
    parts=st.lists(wire, max_size=8),
    role=strategies.roles,
    offer=st.booleans(),
    window=st.sampled_from([0, 5, 65535, 1 << 20]),
)
def test_both_twins_make_the_same_of_the_same_pieces(
    data: st.DataObject, parts: list[bytes], role: Role, offer: bool, window: int
) -> None:
    octets = (PREFACE if role is Role.SERVER else b"") + settings() + b"".join(parts)
    pieces = data.draw(strategies.cut(octets))
    results = []
    for twin in (COMPILED, INTERPRETED):
        connection = make(twin, role, offer, window)
        if role is Role.CLIENT:
            for method in ("GET", "HEAD"):
                connection.request(request(twin, method), end_stream=False)
        result = outcome(connection, pieces)
        table = list(connection.decoder.table.entries)
        results.append((result, table, sorted(connection.streams), connection.closed, connection.idle_frames.left))
    assert results[0] == results[1]


calls = st.one_of(
    st.tuples(st.just("receive"), wire),
    st.tuples(st.just("receive"), wire),
    st.tuples(st.just("request"), st.sampled_from(["GET", "HEAD", "CONNECT", "G T"]), st.booleans()),
    st.tuples(st.just("respond"), st.sampled_from([99, 103, 200, 204]), st.booleans()),
    st.tuples(st.just("send_trailers")),
    st.tuples(
        st.just("send_data"), st.sampled_from([b"", b"abc", bytes(3000), bytes(40000), bytes(70000)]), st.booleans()
    ),
    st.tuples(st.just("reset"), st.integers(0, 14)),
    st.tuples(st.just("acknowledge"), st.sampled_from([0, 1, 40000])),
    st.tuples(st.just("widen"), st.sampled_from([0, 100000, 1 << 32])),
    st.tuples(st.just("sendable")),
    st.tuples(st.just("ping"), st.sampled_from([b"12345678", b""])),
    st.tuples(st.just("go_away"), st.sampled_from([None, 1, (1 << 31) - 1])),
    st.tuples(st.just("elapse"), st.sampled_from([0.0, 0.5])),
    st.tuples(st.just("pending")),
    st.tuples(st.just("data_to_send")),
)


def call(twin: Twin, connection: Any, place: int, name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "receive":
        connection.receive(arguments[0])
        found = []
        while (event := connection.next_event()) is not None:
            found.append(describe(event))
        connection.keep_buffer()
        return found
    if name == "request":
        return connection.request(request(twin, arguments[0]), end_stream=arguments[1]).id
    if name in {"ping", "go_away", "elapse", "pending", "data_to_send"}:
        return getattr(connection, name)(*arguments)
    streams = list(connection.streams.values())
    if not streams:
        return None
    stream = streams[place % len(streams)]
    if name == "respond":
        arguments = (arguments[0], headers(twin), arguments[1])
    elif name == "send_trailers":
        arguments = (headers(twin),)
    result = getattr(connection, name)(stream, *arguments)
    return result, stream.id, stream.state, stream.send_window, stream.receive_window, stream.given, stream.target


@strategies.examples(400)
@given(script=st.lists(st.tuples(st.integers(0, 3), calls), max_size=15), role=strategies.roles, offer=st.booleans())
def test_both_twins_do_the_same_for_the_same_calls(
    script: list[tuple[int, tuple[Any, ...]]], role: Role, offer: bool
) -> None:
    connections = [(twin, make(twin, role, offer, 65535)) for twin in (COMPILED, INTERPRETED)]
    start = (PREFACE if role is Role.SERVER else b"") + settings()
    for place, (name, *arguments) in [(0, ("receive", start)), *script]:
        results = []
        for twin, connection in connections:
            try:
                results.append(call(twin, connection, place, name, tuple(arguments)))
            except (RawwsError, Http2Error) as error:
                results.append((type(error).__name__, str(error)))
        assert results[0] == results[1], (name, arguments)
    first, second = (b"".join(connection.data_to_send()) for _, connection in connections)
    assert first == second


@strategies.examples(300)
@given(blocks=st.lists(st.binary(max_size=30), max_size=5), limit=st.sampled_from([0, 50, 4096]))
def test_both_twins_decode_alike(blocks: list[bytes], limit: int) -> None:
    decoders = [twin.load("rawws.protocol.hpack").HpackDecoder(100, limit) for twin in (COMPILED, INTERPRETED)]
    for octets in blocks:
        results: list[Any] = []
        for decoder in decoders:
            try:
                results.append((decoder.decode(octets), decoder.list_size, list(decoder.table.entries)))
            except Http2Error as error:
                results.append(str(error))
        assert results[0] == results[1]
        if isinstance(results[0], str):
            return


@strategies.examples(300)
@given(octets=st.binary(max_size=60))
def test_both_twins_have_one_huffman_code(octets: bytes) -> None:
    modules = [twin.load("rawws.protocol.huffman") for twin in (COMPILED, INTERPRETED)]
    codes = [module.encode_huffman(octets) for module in modules]
    assert codes[0] == codes[1]
    results = []
    for module in modules:
        try:
            results.append(module.decode_huffman(octets, 0, len(octets)))
        except Http2Error as error:
            results.append(str(error))
    assert results[0] == results[1]
