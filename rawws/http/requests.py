"""Requests: a head and a body to what an HTTP endpoint gets (RFC 9110 sections 6 and 7)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, final
from urllib.parse import unquote

from rawws.errors import HttpError, LocalProtocolError
from rawws.net.awaitables import release
from rawws.net.parameters import parse_cookies, query_of, token_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from rawws.net.identity import Identity
    from rawws.net.parameters import Query
    from rawws.protocol.http11 import Headers, Request

    from .body_room import BodyRoom
    from .serving import RunningServer

__all__ = ["HttpRequest", "LastEventId"]


@final
class LastEventId(str):
    """What a browser says that it got last: it says it again at each try, so a hub takes whatever comes.

    One that no topic ever gave is a place that is lost, and no mistake: an answer of 400 would end an EventSource.
    """

    __slots__ = ()


# Of the many who begin: each stream keeps its own.
NO_EVENT = LastEventId()


@final
class HttpRequest:
    """A request as an endpoint gets it: `head` is what the client sent before the body.

    `path` is decoded and has no query; `path_params` are what the route's path has in braces. `remote_address` and
    `scheme` are those of the client, if a trusted proxy stands between. `server` is the Server that got it; None where
    another one did, and then `scope` is what that says of the request, in ASGI.
    """

    __slots__ = (
        "_body", "_ended", "_leaves", "_waiters", "_was_read", "body_room", "head", "identity", "on_response",
        "path_params", "remote_address", "scheme", "scope", "server",
    )  # fmt: skip

    def __init__(self, head: Request, path_params: Mapping[str, str], remote_address: Any, scheme: str) -> None:
        self.head = head
        self.path_params = path_params
        self.remote_address = remote_address
        self.scheme = scheme
        self.server: RunningServer | None = None
        self.scope: MutableMapping[str, Any] | None = None
        # What its body is counted in, where a check of its route says so.
        self.body_room: BodyRoom | None = None
        # Called once with the status of its response when that begins, whoever answers; a check of its route sets it.
        self.on_response: Callable[[int], object] | None = None
        # Who asks, as `identify` of a hub said, or the application.
        self.identity: Identity | None = None
        self._body: bytes | None = b""
        # Whether nothing more can be answered, who waits for that, and whether the body goes once it was read.
        self._ended = self._leaves = self._was_read = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def __repr__(self) -> str:
        return f"<rawws.HttpRequest {self.head.method} {self.head.path}>"

    @property
    def body(self) -> bytes:
        """The body; of a client that is gone it is given once more, if it was not read before, and not kept.

        Raises LocalProtocolError where it is not kept any more.
        """
        body = self._body
        if body is None:
            raise LocalProtocolError("the client is gone, and the body with it: needed is to keep what is read of it")
        if self._leaves:
            self._body = None
        self._was_read = True
        return body

    @body.setter
    def body(self, body: bytes) -> None:
        self._body = body

    async def disconnected(self) -> None:
        """Wait until nothing can be answered any more: the client is gone, or has its answer.

        A client that has ended its side of the connection counts as gone here.
        """
        if not self._ended:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    @property
    def method(self) -> str:
        """The method, as it was sent: methods are case-sensitive."""
        return self.head.method

    @property
    def headers(self) -> Headers:
        """The header fields."""
        return self.head.headers

    @property
    def path(self) -> str:
        """The path, decoded and without the query."""
        return unquote(self.head.path.partition("?")[0])

    @property
    def query(self) -> Query:
        """The parameters behind the `?`, read again at each call."""
        return query_of(self.head)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, by name; of two with one name the first, whose path is the longer one (RFC 6265 section 5.4)."""
        return parse_cookies(self.head)

    @property
    def token(self) -> str:
        """The token of `Authorization: Bearer` (RFC 6750), else of `?token=`; "" for none."""
        return token_in(self.head)

    @property
    def last_event_id(self) -> LastEventId:
        """The id of the last event that an EventSource got before it reconnected, empty where it does not say.

        As `since`, a hub never refuses it: of what no topic ever gave, `recovered` is False.
        """
        # WHATWG HTML 9.2.4: Last-Event-ID is UTF-8, which headers as such are not.
        values = self.headers.get_all("Last-Event-ID")
        return LastEventId(values[0].encode("latin-1").decode("utf-8", "replace")) if values else NO_EVENT

    def text(self) -> str:
        """Return the body as text; raises HttpError(400) if it is no UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise HttpError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None

    def json(self) -> Any:
        """Return what the body says in JSON; raises HttpError(400) if it is none."""
        try:
            return json.loads(self.text())
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"the body is not JSON: {error}") from None

    # -- what the exchange calls

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for the end of the client."""
        return self._waiters is not None

    def half_close(self) -> None:
        """Have whoever begins to wait for the end of the client hear of it: nothing else tells."""
        self._ended = True

    def end(self) -> None:
        """Tell those who wait that nothing can be answered any more."""
        self._ended = True
        if self._waiters is not None:
            release(self._waiters)
            self._waiters = None

    def drop_body(self) -> None:
        """Keep the body no longer than until it is read, for its client is gone."""
        if self._was_read:
            self._body = None
        self._leaves = True
