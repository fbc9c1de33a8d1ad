"""Publishing: a message to the HTTP API of a hub, by one request, and back its cursor (docs/use/api.md)."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from rawws.errors import HttpError, InvalidMessage, InvalidStatus, InvalidURI
from rawws.http.responses import Received
from rawws.net.logs import without_userinfo
from rawws.net.options import check_limits
from rawws.net.transports import abort_transport, close_transport, write_first
from rawws.protocol.bodies import Body
from rawws.protocol.extensions import excerpt
from rawws.protocol.http11 import Headers, Request, serialize_request

from .dialing import TransportOptions, create_connection
from .options import USER_AGENT
from .response import BODY_SIZE, receive_response
from .uri import HTTP, parse_uri

if TYPE_CHECKING:
    import ssl as ssl_module

    from .uri import Target

__all__ = ["exchange", "post_publication"]

READ_SIZE = 65536
# So many characters of what the server says stand in an error.
REASON = 256


async def post_publication(
    url: str,
    topic: str,
    data: Any,
    *,
    key: str,
    event: str | None = None,
    is_json: bool = False,
    timeout: float | None = 10,  # noqa: ASYNC109 - as `rawws.sync` and the command line call it
    ssl: ssl_module.SSLContext | bool | None = None,
    proxy: str | bool | None = True,
    path: str | None = None,
) -> str:
    """Publish to a topic, and return the cursor of the publication.

    `url` is that of the API. `data` is a str, which is published as it is, bytes, or what JSON can say; with `is_json`
    a str is JSON already. `event` is the name of an event. `timeout` spans all of it, in seconds; `ssl`, `proxy` and
    `path` are as with `connect`. No redirect is followed.

    Raises OSError where it cannot connect or takes too long (TimeoutError), InvalidStatus for a refusal, whose reason
    is the server's, InvalidMessage for another answer, InvalidURI, and LocalProtocolError for what cannot be sent.
    """
    check_limits(timeout=timeout)
    if "?" in url or "#" in url:
        raise InvalidURI(f"the URI is {without_userinfo(url)!r}, that of an API has no '?' and no '#'")
    target = parse_uri(f"{url.rstrip('/')}/publish", HTTP)
    if target.authorization is not None:
        raise InvalidURI("the URI has a user name, needed for an API is a key")
    request = request_of(target, topic, data, key, event, is_json=is_json)
    try:
        async with asyncio.timeout(timeout) as limit:
            response = await exchange(request, target, TransportOptions(ssl=ssl, proxy=proxy, path=path))
    except TimeoutError:
        # The network has timeouts of its own.
        if not limit.expired():
            raise
        raise TimeoutError(f"no answer from {target.authority} within {timeout:g} s") from None
    return cursor_in(response)


def request_of(target: Target, topic: str, data: Any, key: str, event: str | None, *, is_json: bool) -> bytes:
    """Return the request. Raises LocalProtocolError for a key that cannot be sent."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        fields: dict[str, Any] = {"topic": topic, "base64": b64encode(data).decode()}
    else:
        fields = {"topic": topic, "data": data}
    # An API of before refuses what it does not know.
    if is_json:
        fields["json"] = True
    if event is not None:
        fields["event"] = event
    body = json.dumps(fields, allow_nan=False).encode()
    headers = [
        ("Host", target.authority),
        ("Authorization", f"Bearer {key}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Accept-Encoding", "identity"),
        ("User-Agent", USER_AGENT),
        ("Connection", "close"),
    ]
    return serialize_request(Request("POST", target.path, Headers(headers))) + body


async def exchange(request: bytes, target: Target, options: TransportOptions, max_size: int = BODY_SIZE) -> Received:
    """Send a request over a connection of its own, and return the response, with so much of its body."""
    reader = asyncio.StreamReader(READ_SIZE)
    transport = await create_connection(lambda: asyncio.StreamReaderProtocol(reader), target, options)
    try:
        write_first(transport, request)
        response, rest = await receive_response(lambda: reader.read(READ_SIZE))
        body, decoder = bytearray(), Body(response.headers, max_size=None, until_eof=response.status != 204)
        body += decoder.receive(rest)
        while not decoder.done and len(body) < max_size:
            octets = await reader.read(READ_SIZE)
            if not octets:
                decoder.receive_eof()
                break
            body += decoder.receive(octets)
    except HttpError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage(0, error.reason) from None
    finally:
        close_transport(transport)
        asyncio.get_running_loop().call_soon(abort_transport, transport)
    return Received(*response._replace(body=bytes(body[:max_size])))


def cursor_in(response: Received) -> str:
    """Return the cursor of what is published. Raises InvalidStatus for a refusal, InvalidMessage for anything else."""
    try:
        fields = json.loads(response.body)
    except (ValueError, RecursionError):
        fields = None
    said = fields if isinstance(fields, dict) else {}
    if response.status != 200:
        why = str(said.get("reason") or response.body.decode("utf-8", "replace").partition("\n")[0].strip())
        reason = f"the server answered {excerpt(response.reason_phrase)}"
        shown = why[:REASON] if why.isprintable() else repr(why[:REASON])
        raise InvalidStatus(response, f"{reason}: {shown}" if why else reason)
    cursor = said.get("cursor")
    if not isinstance(cursor, str):
        raise InvalidMessage(0, "the answer has no cursor, so it is none of the API of a hub")
    return cursor
