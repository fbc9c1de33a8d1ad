"""The interpreted twin and the compiled one are equal: same octets, same events, same errors, same answers.

With RAWWS_PURE=1, or without a compiler, there is one twin only, and these tests are skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws.protocol.connection
import rawws.protocol.deflate
import rawws.protocol.frames
import rawws.protocol.messages
from fuzz.twins import INTERPRETED, is_compiled
from rawws.errors import RawwsError, RemoteProtocolError
from rawws.protocol.connection import Role
from rawws.protocol.deflate import DeflateParameters
from tests.protocol import strategies
from tests.protocol.wire import Outcome, describe, outcome

COMPILED_MODULES = tuple(f"rawws.protocol.{name}" for name in ("frames", "messages", "connection"))

pytestmark = pytest.mark.skipif(
    not any(map(is_compiled, COMPILED_MODULES)), reason="this process runs the interpreted twin only"
)

# Each twin as its modules of frames, deflate and connection.
Twin = tuple[ModuleType, ModuleType, ModuleType]


@pytest.fixture(scope="module")
def twins() -> tuple[Twin, Twin]:
    def pure(name: str) -> ModuleType:
        return INTERPRETED.load(f"rawws.protocol.{name}")

    return (
        (rawws.protocol.frames, rawws.protocol.deflate, rawws.protocol.connection),
        (pure("frames"), pure("deflate"), pure("connection")),
    )


def test_the_twins_are_one_compiled_and_one_interpreted(twins: tuple[Twin, Twin]) -> None:
    assert all(map(is_compiled, COMPILED_MODULES)), "half a build"
    assert str(twins[0][2].__file__).endswith((".so", ".pyd"))
    assert str(twins[1][2].__file__).endswith("connection.py")
    assert twins[0][2].Connection is not twins[1][2].Connection
    # The errors are one and the same.
    assert twins[1][2].RemoteProtocolError is RemoteProtocolError


@pytest.mark.parametrize("name", COMPILED_MODULES)
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


def make(twin: Twin, role: Role, max_size: int | None, parameters: DeflateParameters | None) -> Any:
    """A connection of this twin."""
    _, deflate, connection = twin
    its_role = connection.Role[role.name]
    extension = None
    if parameters is not None:
        its_parameters = deflate.DeflateParameters(
            parameters.server_no_context_takeover,
            parameters.client_no_context_takeover,
            parameters.server_max_window_bits,
            parameters.client_max_window_bits,
        )
        extension = deflate.PerMessageDeflate(
            its_parameters, role is Role.SERVER, deflate.Compression(threshold=10), {}
        )
    return connection.Connection(its_role, max_size, extension, random=strategies.fixed_random)


@strategies.examples(500)
@given(
    data=st.data(),
    role=strategies.roles,
    max_size=strategies.limits,
    parameters=strategies.parameters,
    streaming=st.booleans(),
    closing=st.booleans(),
)
def test_both_twins_make_the_same_of_the_same_pieces(
    twins: tuple[Twin, Twin],
    data: st.DataObject,
    role: Role,
    max_size: int | None,
    parameters: DeflateParameters | None,
    streaming: bool,
    closing: bool,
) -> None:
    pieces = data.draw(strategies.cut(data.draw(strategies.streams(role, parameters is not None))))
    outcomes: list[tuple[Outcome, Any]] = []
    for twin in twins:
        connection = make(twin, role, max_size, parameters)
        connection.messages.streaming = streaming
        if closing:
            connection.close(1001, "bye")
        result = outcome(connection, pieces)
        state = (int(connection.phase), connection.close_rcvd, connection.close_sent, connection.rcvd_then_sent)
        outcomes.append((result, state))
    assert outcomes[0] == outcomes[1]


calls = st.one_of(
    st.tuples(st.just("send"), st.text(max_size=30) | st.binary(max_size=30) | st.integers(0, 70000).map(bytes)),
    st.tuples(st.just("send"), st.just("\ud800") | st.integers() | st.none(), st.sampled_from([None, True, False])),
    st.tuples(st.just("send"), st.text(max_size=30), st.sampled_from([None, True, False])),
    st.tuples(st.just("send_fragment"), st.integers(0, 2), st.binary(max_size=20), st.booleans()),
    st.tuples(st.just("ping"), st.binary(max_size=130)),
    st.tuples(st.just("pong"), st.binary(max_size=130)),
    st.tuples(st.just("close"), st.sampled_from([999, 1000, 1005, 1006, 4000]), st.text(max_size=60)),
    st.tuples(st.just("fail"), st.sampled_from([1002, 1006, 1011]), st.text(max_size=60)),
    st.tuples(st.just("receive"), st.binary(max_size=6)),
    st.tuples(st.just("next_event")),
    st.tuples(st.just("data_to_send")),
    st.tuples(st.just("pending")),
    st.tuples(st.just("release_pong")),
    st.tuples(st.just("receive_eof")),
    st.tuples(st.just("keep_buffer")),
)


@strategies.examples(300)
@given(data=st.data(), role=strategies.roles, parameters=strategies.parameters, hold=st.booleans())
def test_both_twins_do_the_same_for_the_same_calls(
    twins: tuple[Twin, Twin], data: st.DataObject, role: Role, parameters: DeflateParameters | None, hold: bool
) -> None:
    def events(value: Any) -> Any:
        return describe(value) if isinstance(value, (str, bytes, tuple)) or hasattr(value, "final") else value

    connections = [make(twin, role, 50, parameters) for twin in twins]
    for connection in connections:
        connection.hold_pongs = hold
    frames = (
        strategies.messages(role, parameters is not None) | strategies.control_frames(role) | strategies.closes(role)
    )
    script = data.draw(st.lists(calls | st.tuples(st.just("receive"), frames), max_size=12))
    for name, *arguments in script:
        results = []
        for connection in connections:
            try:
                results.append(events(getattr(connection, name)(*arguments)))
            except (RawwsError, TypeError, ValueError) as error:
                results.append((type(error).__name__, str(error)))
        assert results[0] == results[1], (name, arguments)
        assert connections[0].state.name == connections[1].state.name
    assert connections[0].data_to_send() == connections[1].data_to_send()
    assert str(connections[0].closed()) == str(connections[1].closed())


def test_both_twins_judge_every_header_alike(twins: tuple[Twin, Twin]) -> None:
    def verdict(check: Callable[..., None], arguments: Iterable[Any]) -> str:
        try:
            check(*arguments)
        except RemoteProtocolError as error:
            return str(error)
        return ""

    for first in range(256):
        for second in range(256):
            for length in (second & 127, 126, 65535, 65536, (1 << 63) - 1):
                for context in ((True, False, False), (False, True, True)):
                    arguments = (first, second, length, *context)
                    assert verdict(twins[0][0].check_header, arguments) == verdict(twins[1][0].check_header, arguments)
