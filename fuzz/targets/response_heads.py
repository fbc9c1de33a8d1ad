"""Response heads, and the opening handshake of a client.

Invariant: any octets, in any pieces, give the same response with the same rest, or the same HandshakeError with status
0, or nothing yet; no more is held than a head may have. A handshake that is accepted has the right key, and agrees on
nothing that was not offered; one that is refused has the status and the headers of the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.heads import KEY, RESPONSE_SEEDS, RESPONSE_WORDS, Parser
from fuzz.target import Target, short
from rawws.errors import HandshakeError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

OFFERS = ((), ("chat",), ("superchat", "chat"))


class Client:
    """The client's side of the handshake."""

    def __init__(self, twin: Twin) -> None:
        self.parser = Parser(twin, response=True)
        self.handshake = twin.load("rawws.protocol.handshake")
        compression = twin.load("rawws.protocol.deflate").Compression
        self.compressions = [None, compression(), compression(False, False), compression(True, True, 10, 10)]

    def agree(self, response: Any, settings: int) -> str:
        """Check the response to a request; return what became of it."""
        compression, offers = self.compressions[settings >> 2 & 3], OFFERS[(settings >> 4) % 3]
        try:
            agreed = self.handshake.check_response(response, KEY, subprotocols=offers, compression=compression)
        except HandshakeError as error:
            assert error.status == response.status, error
            assert error.headers == tuple(response.headers.raw_items()), error
            return short(error.reason)
        assert response.status == 101
        assert response.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert agreed.subprotocol is None or agreed.subprotocol in offers
        parameters = agreed.parameters
        if parameters is not None:
            assert compression is not None
            # What limits the server is in its answer, or it agreed to our second offer.
            answer = ", ".join(response.headers.get_all("Sec-WebSocket-Extensions"))
            assert parameters.server_no_context_takeover == ("server_no_context_takeover" in answer)
            assert parameters.client_no_context_takeover or not compression.client_no_context_takeover
            most = compression.server_max_window_bits if "server_max_window_bits" in answer else 15
            assert 8 <= parameters.server_max_window_bits <= most
            assert 9 <= parameters.client_max_window_bits <= compression.client_max_window_bits
        return f"{agreed.subprotocol} {parameters}"

    def check_written(self, response: Any) -> None:
        """Check that a response is the same once it was written and read again, if it can be written."""
        http11 = self.parser.http11
        try:
            octets = http11.serialize_response(response, omit_body=True)
        except LocalProtocolError:
            return
        again, seen = self.parser.parse([octets], 0)
        assert again is not None, octets
        assert again.status == response.status, octets
        written = self.parser.see(response).fields
        assert seen.fields[: len(written)] == written, octets


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads a response."""
    client = Client(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, response, seen = client.parser.read(data)
        if seen.error is not None:
            assert seen.error[0] == 0, seen
            return short(seen.error[1])
        if response is None:
            return None
        client.check_written(response)
        return response.status // 100, min(len(seen.fields), 6), client.agree(response, settings)

    return check


TARGET = Target(make, RESPONSE_SEEDS, RESPONSE_WORDS, max_length=400)
