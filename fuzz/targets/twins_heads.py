"""The compiled head parser, handshake and header lists against the interpreted ones.

Invariant: of the same octets in the same pieces both make the same request or response with the same rest, the same
error, and the same answer to the handshake, octet by octet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.heads import KEY, REQUEST_SEEDS, REQUEST_WORDS, RESPONSE_SEEDS, RESPONSE_WORDS, Parser
from fuzz.target import Target, cut, short
from fuzz.twins import INTERPRETED
from rawws.errors import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# In the octet that chooses the settings, this bit chooses a response.
RESPONSE = 0x80


class Side:
    """Reads heads and answers them with one twin."""

    def __init__(self, twin: Twin) -> None:
        self.parsers = [Parser(twin, response=False), Parser(twin, response=True)]
        self.http11 = self.parsers[0].http11
        self.handshake = twin.load("rawws.protocol.handshake")
        compression = twin.load("rawws.protocol.deflate").Compression
        self.compressions = [None, compression(), compression(False, False), compression(True, True, 10, 10)]

    def outcome(self, data: bytes) -> tuple[Any, ...]:
        """Return what becomes of an input, and its kind."""
        settings = data[0]
        response = settings & RESPONSE != 0
        head, seen = self.parsers[response].parse(cut(data[2:], data[1]), settings)
        if seen.error is not None:
            refusal = self.http11.serialize_response(self.handshake.refusal(HandshakeError(400, *seen.error[1:])))
            return short(seen.error[1]), seen, refusal
        if head is None:
            return None, seen
        try:
            answer = self.check(head, settings) if response else self.answer(head, settings)
        except HandshakeError as error:
            return short(error.reason), seen, (type(error).__name__, error.status, error.reason, error.headers)
        return len(seen.fields) > 3, seen, answer

    def answer(self, request: Any, settings: int) -> Any:
        """Do as a server."""
        key = self.handshake.check_upgrade(request)
        self.handshake.check_origin(request, None if settings & 16 else "*", "http", request.headers["Host"])
        subprotocols = ["superchat", "chat"] if settings & 32 else None
        compression = self.compressions[settings >> 2 & 3]
        accepted = self.handshake.accept(request, key, subprotocols=subprotocols, compression=compression)
        return accepted.serialize(), accepted.subprotocol, str(accepted.parameters)

    def check(self, response: Any, settings: int) -> Any:
        """Do as a client."""
        compression = self.compressions[settings >> 2 & 3]
        agreed = self.handshake.check_response(response, KEY, subprotocols=("chat",), compression=compression)
        return agreed.subprotocol, str(agreed.parameters)


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    first, second = Side(twin), Side(INTERPRETED)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        ours, theirs = first.outcome(data), second.outcome(data)
        assert ours == theirs, (ours, theirs)
        return data[0] & RESPONSE, ours[0]

    return check


BOTH = [*REQUEST_SEEDS, *(bytes((octets[0] | RESPONSE, octets[1])) + octets[2:] for octets in RESPONSE_SEEDS)]
TARGET = Target(make, BOTH, [*REQUEST_WORDS, *RESPONSE_WORDS], max_length=700, both=True)
