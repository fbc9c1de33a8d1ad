"""Responses: bytes from a server or a proxy to a response, or to the error for one that is not wanted.

Informational responses (RFC 9110 section 15.2) come before the one that counts, and are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from rawws.errors import HttpError, InvalidMessage, InvalidStatus
from rawws.http.responses import Received
from rawws.protocol.extensions import excerpt
from rawws.protocol.http11 import HeadReader, parse_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rawws.protocol.http11 import HttpResponse

__all__ = ["BODY_SIZE", "BODY_WAIT", "ResponseReader", "receive_response", "refusal_of"]

# Responses that come before the one that counts; one or two are usual.
MAX_INTERIM = 8
# How much of the body of a refusal is read, in bytes, and for how long, in seconds: it is there to say why.
BODY_SIZE = 16384
BODY_WAIT = 2.0


@final
class ResponseReader:
    """Collects the bytes of a response's head. When `receive` returns it, `rest` is what came behind it."""

    __slots__ = ("_interim", "_reader", "rest")

    def __init__(self) -> None:
        self._reader = HeadReader(response=True)
        self._interim = 0
        self.rest = b""

    def receive(self, data: bytes) -> HttpResponse | None:
        """Take the next bytes; return the response when its head is complete.

        Raises InvalidMessage for what is no HTTP; the reader is of no more use then.
        """
        try:
            while self._reader.receive(data):
                response, self.rest = parse_response(self._reader.head), self._reader.rest
                # RFC 9110 15.2: "A client MUST be able to parse one or more 1xx responses received prior to a final
                # response, even if the client does not expect one."
                if response.status >= 200 or response.status == 101:
                    return response
                data = self.rest
                self._reader = HeadReader(response=True)
                self._interim += 1
                if self._interim > MAX_INTERIM:
                    raise HttpError(0, f"over {MAX_INTERIM} interim responses came, the last {response.status}")
        except HttpError as error:
            raise InvalidMessage(0, error.reason) from None
        return None


async def receive_response(
    read: Callable[[], Awaitable[bytes]], ended: str = "the connection ended before the response"
) -> tuple[HttpResponse, bytes]:
    """Read until a response is there; return it, and what came behind its head.

    `read` returns nothing at the end. Raises InvalidMessage where that comes first, or for what is no HTTP.
    """
    reader = ResponseReader()
    response = None
    while response is None:
        data = await read()
        if not data:
            raise InvalidMessage(0, ended)
        response = reader.receive(data)
    return response, reader.rest


def refusal_of(response: HttpResponse, body: bytes, wanted: str) -> InvalidStatus:
    """Return the error for a response, with the beginning of its body, that is not what was wanted."""
    received = Received(*response._replace(body=body[:BODY_SIZE]))
    kind = ", ".join(received.headers.get_all("Content-Type")).partition(";")[0].strip()
    reason = f"the server answered {excerpt(received.reason_phrase)} and not with {wanted}"
    if kind == "text/plain" and received.body:
        reason += f": {excerpt(received.body.decode('utf-8', 'replace').partition(chr(10))[0].rstrip())}"
    elif kind:
        reason += f", but with {excerpt(kind)}"
    return InvalidStatus(received, reason)
