"""Fixtures of the protocol's tests: both roles, and every case whole, octet by octet, with trailing data, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import pytest

from rawws.protocol import speedups
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import PerMessageDeflate
from tests.protocol.wire import PONG, Outcome, octets_of, outcome, peer_frame

AFTER = ("Pong", b"after")


class Feed(Protocol):
    """Give the octets to a new connection, and return what comes of them."""

    def __call__(
        self,
        role: Role,
        data: bytes,
        *,
        max_size: int | None = 1 << 20,
        deflate: PerMessageDeflate | None = None,
        streaming: bool = False,
    ) -> Outcome: ...


def whole(role: Role, data: bytes) -> Iterable[bytes]:
    return [data]


def octet_by_octet(role: Role, data: bytes) -> Iterable[bytes]:
    return octets_of(data)


def with_trailing_data(role: Role, data: bytes) -> Iterable[bytes]:
    return [data + peer_frame(role, PONG, b"after")]


def inflated_in_pieces(role: Role, data: bytes) -> Iterable[bytes]:
    return [data]


@pytest.fixture(params=[whole, octet_by_octet, with_trailing_data, inflated_in_pieces], ids=lambda way: way.__name__)
def feed(request: pytest.FixtureRequest) -> Feed:
    """For cases that end with a frame: the trailing data is one more, which must come if the connection is still up."""
    cut: Callable[[Role, bytes], Iterable[bytes]] = request.param

    def give(
        role: Role,
        data: bytes,
        *,
        max_size: int | None = 1 << 20,
        deflate: PerMessageDeflate | None = None,
        streaming: bool = False,
    ) -> Outcome:
        connection = Connection(role, max_size, deflate)
        connection.messages.streaming = streaming
        if cut is inflated_in_pieces and deflate is not None:
            deflate.piece_size = 3
        result = outcome(connection, cut(role, data))
        result.events[:] = [event for event in result.events if event[0] != "Inflated"]
        if cut is with_trailing_data and result.error is None and "Close" not in {event[0] for event in result.events}:
            assert result.events.pop() == AFTER
        assert AFTER not in result.events
        return result

    return give


@pytest.fixture(params=["zlib", "isal"])
def compresses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What compresses for those that share a compressor: where it is not named, whichever is installed."""
    assert speedups.isal_zlib is not None, "`make test` installs the extra `speedups`"
    if request.param == "zlib":
        monkeypatch.setattr(speedups, "isal_zlib", None)
    return str(request.param)


@pytest.fixture(params=list(Role), ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    """The role of the connection under test."""
    chosen: Role = request.param
    return chosen
