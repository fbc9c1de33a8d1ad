"""Request heads, and the opening handshake of a server.

Invariant: any octets, in any pieces, give the same request with the same rest, or the same HandshakeError with a status
that a server may answer, or nothing yet; no more is held than a head may have. What is accepted can be written and read
again, and so can each refusal; a handshake that is accepted is one that the client accepts, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.heads import REQUEST_SEEDS, REQUEST_WORDS, Parser, Seen
from fuzz.target import Target, short
from rawws.errors import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

STATUSES = {400, 405, 414, 431, 501, 505}
UPGRADE_STATUSES = {400, 403, 405, 417, 426}
# What may not stand in a field: RFC 9110 5.5.
CONTROLS = {*map(chr, range(0x20)), "\x7f"} - {"\t"}


class Server:
    """The server's side of the handshake, and the client's to check its answers."""

    def __init__(self, twin: Twin) -> None:
        self.parser = Parser(twin, response=False)
        self.answers = Parser(twin, response=True)
        self.http11 = self.parser.http11
        self.handshake = twin.load("rawws.protocol.handshake")
        compression = twin.load("rawws.protocol.deflate").Compression
        self.compressions = [None, compression(), compression(server_no_context_takeover=False), compression(
            server_max_window_bits=9, client_max_window_bits=10)]  # fmt: skip

    def check_request(self, request: Any, seen: Seen) -> None:
        """Check what holds for a request that is accepted."""
        for name, value in seen.fields:
            assert CONTROLS.isdisjoint(name), name
            assert CONTROLS.isdisjoint(value), value
        hosts = request.headers.get_all("Host")
        assert len(hosts) == 1 or (request.http_version == "1.0" and not hosts), hosts
        length = self.http11.content_length(request.headers)
        assert length is None or "Transfer-Encoding" not in request.headers
        again = self.parser.see(self.http11.parse_request(self.http11.serialize_request(request)))
        assert again == seen._replace(rest=b""), (again, seen)

    def check_refusal(self, error: HandshakeError) -> None:
        """Check that a refusal is one response, which says what it should."""
        octets = self.http11.serialize_response(self.handshake.refusal(error))
        head, seen = self.answers.parse([octets], 0)
        assert head is not None, octets
        assert head.status == error.status, octets
        assert dict(error.headers).items() <= dict(seen.fields).items(), octets
        assert seen.rest == f"{error.reason}\n".encode(), octets

    def upgrade(self, request: Any, settings: int) -> str:
        """Do what a server does with a request for WebSocket; return what became of it."""
        compression = self.compressions[settings >> 2 & 3]
        try:
            key = self.handshake.check_upgrade(request)
            self.handshake.check_origin(request, None if settings & 16 else "*", "http", request.headers["Host"])
            accepted = self.handshake.accept(
                request, key, subprotocols=["superchat", "chat"] if settings & 32 else None, compression=compression
            )
        except HandshakeError as error:
            assert error.status in UPGRADE_STATUSES, error
            self.check_refusal(error)
            return short(error.reason)
        response, seen = self.answers.parse([accepted.serialize()], 0)
        assert response is not None, accepted
        assert seen.rest == b"", accepted
        # A client that offers all of this finds no fault with the answer, but for what it did not offer.
        lenient = self.compressions[2]
        if "server_no_context_takeover" in dict(seen.fields).get(
            "Sec-WebSocket-Extensions", "server_no_context_takeover"
        ):
            lenient = self.compressions[1]
        agreed = self.handshake.check_response(response, key, subprotocols=["superchat", "chat"], compression=lenient)
        assert agreed.subprotocol == accepted.subprotocol, (agreed, accepted)
        assert (agreed.parameters is None) == (accepted.parameters is None), (agreed, accepted)
        return "accepted" if accepted.parameters is None else "compressed"


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads a request."""
    server = Server(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, request, seen = server.parser.read(data)
        if seen.error is not None:
            status, reason, headers = seen.error
            assert status in STATUSES, seen
            if reason[:3] in {"Con", "Tra", "the"} and settings & 64:
                server.check_refusal(HandshakeError(status, reason, headers))
            return status, short(reason)
        if request is None:
            return None
        server.check_request(request, seen)
        return request.http_version, min(len(seen.fields), 6), seen.rest == b"", server.upgrade(request, settings)

    return check


TARGET = Target(make, REQUEST_SEEDS, REQUEST_WORDS, max_length=700)
