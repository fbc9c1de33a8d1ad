"""Extension headers, and the negotiation of permessage-deflate by both roles.

Invariant: any value parses or raises HandshakeError with status 400; what was parsed can be written and parsed again.
A server's answer to an offer keeps the rules of RFC 7692 7.1 for it, and a client that made the offer accepts the
answer, with the same parameters. A client refuses any other answer with NegotiationError.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fuzz.target import Target, seed
from rawws.errors import HandshakeError, NegotiationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

TAKEOVERS = ("server_no_context_takeover", "client_no_context_takeover")
NUMBER = re.compile("[89]|1[0-5]")
BITS = ("server_max_window_bits", "client_max_window_bits")


class Negotiation:
    """Both roles."""

    def __init__(self, twin: Twin) -> None:
        self.extensions = twin.load("rawws.protocol.extensions")
        self.compression = twin.load("rawws.protocol.deflate").Compression

    def settings(self, octet: int) -> Any:
        """Return the Compression that an octet stands for."""
        bits = (15, 12, 9, 15)
        return self.compression(octet & 1 != 0, octet & 2 != 0, bits[octet >> 2 & 3], bits[octet >> 4 & 3])

    def check_answer(self, name: str, answer: dict[str, str | None], offered: list[Any], settings: Any) -> None:
        """Check an answer against the offers: it must answer one of them."""
        assert name == "permessage-deflate"
        reasons = []
        for offer_name, parameters in offered:
            offer = dict(parameters)
            if offer_name != name or len(offer) < len(parameters):
                continue
            reason = self.wrong(answer, offer, settings)
            if not reason:
                return
            reasons.append(reason)
        raise AssertionError(f"{answer} answers none of {offered}: {reasons}")

    def wrong(self, answer: dict[str, str | None], offer: dict[str, str | None], settings: Any) -> str:
        """Return which rule of RFC 7692 7.1 an answer to an offer breaks."""
        if not offer.keys() <= {*TAKEOVERS, *BITS}:
            return "7.1: an unknown parameter must be declined"
        values = [value for value in map(offer.get, BITS) if value is not None]
        if not all(map(NUMBER.fullmatch, values)) or offer.get(BITS[0], "8") is None:
            return "7.1.2: the value of an offer is a decimal number of 8 to 15"
        if any(offer.get(name) is not None for name in TAKEOVERS):
            return "7.1.1: a parameter without a value has one"
        if TAKEOVERS[0] in offer and TAKEOVERS[0] not in answer:
            return "7.1.1.1: server_no_context_takeover must be in the answer"
        if BITS[0] in offer and int(answer.get(BITS[0]) or 99) > int(offer[BITS[0]] or 0):
            return "7.1.2.1: server_max_window_bits must be the same or smaller"
        if BITS[1] in answer and (BITS[1] not in offer or int(answer[BITS[1]] or 99) > int(offer[BITS[1]] or 15)):
            return "7.1.2.2: client_max_window_bits must be offered, and not smaller"
        if settings.server_no_context_takeover and TAKEOVERS[0] not in answer:
            return "this server keeps no context"
        return ""


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads a header."""
    negotiation = Negotiation(twin)
    parse, write = negotiation.extensions.parse_extensions, negotiation.extensions.format_extensions

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings = negotiation.settings(data[0])
        try:
            parsed = parse(data[2:].decode("latin-1"))
        except HandshakeError as error:
            assert error.status == 400, error
            return error.reason[-14:]
        assert parse(write(parsed)) == parsed, parsed
        # As the server's: an answer to these offers, if to any.
        accepted = settings.accept(parsed)
        if accepted is not None:
            (name, answer), parameters = accepted
            assert len(dict(answer)) == len(answer), answer
            negotiation.check_answer(name, dict(answer), parsed, settings)
            if parsed in ([settings.offer()], settings.offers()):
                assert settings.confirm([(name, answer)]) == parameters
        # As the client's: is it an answer to the offer of these settings?
        try:
            confirmed = settings.confirm(parsed)
        except NegotiationError as error:
            return accepted is None, min(len(parsed), 3), error.reason[:24]
        return accepted is None, len(parsed), str(confirmed)

    return check


VALUES = [
    # RFC 7692 7.1.1 to 7.1.3, and RFC 6455 9.1.
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits; server_max_window_bits=10",
    (
        b"permessage-deflate; client_max_window_bits; server_max_window_bits=10, "
        b"permessage-deflate; client_max_window_bits"
    ),
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
    b'permessage-deflate; server_max_window_bits="15"; client_max_window_bits=8',
    b"permessage-deflate; server_max_window_bits=8",
    b"permessage-deflate; server_max_window_bits",
    b"permessage-deflate; server_max_window_bits=09",
    b"permessage-deflate; server_max_window_bits=16, permessage-deflate",
    b"permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    b"permessage-deflate; client_no_context_takeover=1",
    b"permessage-deflate; unknown",
    b'x-webkit-deflate-frame, permessage-bzip2; a=b; c="d"',
    b"foo, bar; baz=2",
    b"deflate-stream",
    b"mux; max-channels=4; flow-control, deflate-stream",
    b', , a ;b = c\t;\t d="e\\f",',
    b'a; b="c, d"',
    b'a; b="\\""',
    b"a;",
    b"=;,",
    b"",
]
WORDS = [
    b"permessage-deflate", b"; server_no_context_takeover", b"; client_no_context_takeover",
    b"; server_max_window_bits=", b"; client_max_window_bits", b"; client_max_window_bits=", b", ", b"; ", b"=", b'"',
    b"\\", b'="', b"8", b"9", b"10", b"15", b"16", b"\t", b" ", b"a", b"\0", b"\x7f", b"\xe9", b"+1", b"\\\\",
]  # fmt: skip
SEEDS = [seed(value, settings) for value in VALUES for settings in (0, 3, 7, 0x1B)]
TARGET = Target(make, SEEDS, WORDS, max_length=160)
