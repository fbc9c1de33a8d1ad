"""Stats: what becomes of the connections of a server, to counters and to one line in the log for each.

Laws:
1. Nothing is counted for each message: two counters of bytes for each connection are all that a read or a write pays.
2. A connection has one line at INFO at the most, at its end or its refusal; what is useful is in the record's `extra`.
3. What a client chose (path, reason, address behind a proxy) is `printable`.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, final

from rawws.http.serving import ServerFigures
from rawws.net.histogram import Histogram
from rawws.net.logs import first_line, printable, shown_address
from rawws.net.streams import is_stream
from rawws.net.websocket import WebSocket
from rawws.protocol.opcodes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.errors import HttpError
    from rawws.net.socket import AsyncSocket

__all__ = ["ConnectionLog", "ServerStats", "kind_of", "path_of"]

access_logger = logging.getLogger("rawws.access")


@final
class ConnectionLog:
    """The lines of a server in the log: one for each WebSocket that ended, each refusal, and maybe each response."""

    __slots__ = ("_logger", "access")

    def __init__(self, logger: logging.Logger, *, access_log: bool) -> None:
        self._logger = logger
        self.access = access_log

    def opened(self, ws: WebSocket) -> None:
        """Keep what the line at the end of a WebSocket needs."""
        if ws.remote is None and self._logger.isEnabledFor(logging.INFO):
            # Once the connection is gone, uvloop cannot tell.
            ws.remote = ws.remote_address

    def closed(self, ws: WebSocket, code: int, reason: str, by: str) -> None:
        """Log the end of a WebSocket, and which side closed it."""
        if self._logger.isEnabledFor(logging.INFO):
            fields = {
                "remote": shown_address(ws.remote_address),
                "path": path_of(ws.request_head),
                "close_code": code,
                "close_reason": printable(reason),
                "closed_by": by,
                "aborted": ws.aborted,
                "seconds": ws.age(),
                "bytes_received": ws.bytes_received,
                "bytes_sent": ws.bytes_sent,
                "connection_id": str(ws.id),
            }
            why = " (%(close_reason)s)" if reason else ""
            text = f"%(remote)s %(path)s closed by %(closed_by)s with %(close_code)d{why} after %(seconds).3f s, "
            text += "%(bytes_received)d bytes received, %(bytes_sent)d sent"
            self._logger.info(text, fields, extra=fields)

    def refused(self, ws: WebSocket, error: HttpError, head: bytes) -> None:
        """Log that a request is refused."""
        if self._logger.isEnabledFor(logging.INFO):
            fields = {
                "remote": shown_address(ws.remote_address),
                "path": path_of(head),
                "status": error.status,
                "reason": printable(error.reason),
            }
            self._logger.info("%(remote)s %(path)s refused with %(status)d: %(reason)s", fields, extra=fields)

    def responded(self, ws: WebSocket, head: bytes, status: int, size: object) -> None:
        """Log a response in the access log, where there is one."""
        if self.access:
            fields = {
                "remote": shown_address(ws.remote_address),
                # In quotes: one of the client's would end them, and what follows would be read as other fields.
                "request": first_line(head).replace('"', "\\x22"),
                "status": status,
                "size": size,
            }
            access_logger.info('%(remote)s "%(request)s" %(status)d %(size)s', fields, extra=fields)


@final
class ServerStats:
    """The counters of a server; what is counted is logged as well."""

    __slots__ = (
        "_bytes_received",
        "_bytes_sent",
        "aborted",
        "accepted",
        "closes",
        "drained",
        "lag",
        "log",
        "opened",
        "proxies_refused",
        "refusals",
        "responses",
        "retired",
        "round_trips",
        "slow",
    )

    def __init__(self, log: ConnectionLog) -> None:
        self.log = log
        self.accepted = self.opened = self.slow = self.drained = self.retired = self.aborted = 0
        # Of the connections that are gone.
        self._bytes_received = self._bytes_sent = 0
        self.proxies_refused = 0
        self.closes: dict[int, int] = {}
        self.refusals: dict[int, int] = {}
        self.responses: dict[int, int] = {}
        self.lag = Histogram()
        self.round_trips = Histogram()

    def open(self, ws: WebSocket) -> None:
        """Count a WebSocket."""
        self.opened += 1
        self.log.opened(ws)

    def close(self, ws: AsyncSocket) -> None:
        """Count the end of a TCP connection."""
        if not is_stream(ws):
            self._bytes_received += ws.bytes_received
            self._bytes_sent += ws.bytes_sent
        self.aborted += ws.aborted
        if not isinstance(ws, WebSocket) or ws.handler is not None:
            return
        closed = ws.connection.closed()
        by, close = ("peer", closed.rcvd) if closed.rcvd_then_sent else ("server", closed.sent)
        code, reason = (int(CloseCode.ABNORMAL_CLOSURE), "") if close is None else close
        self.closes[code] = self.closes.get(code, 0) + 1
        self.log.closed(ws, code, reason, "nobody" if close is None else by)

    def refuse_proxy(self) -> None:
        """Count a connection that is closed for want of a PROXY header of a trusted proxy."""
        self.proxies_refused += 1

    def refuse(self, ws: WebSocket, error: HttpError, head: bytes) -> None:
        """Count a request that is refused."""
        self.refusals[error.status] = self.refusals.get(error.status, 0) + 1
        self.log.refused(ws, error, head)

    def respond(self, ws: WebSocket, head: bytes, status: int, size: object) -> None:
        """Count a response, whose body has so many bytes, to the request with this head."""
        self.responses[status] = self.responses.get(status, 0) + 1
        self.log.responded(ws, head, status, size)

    def figures(self, connections: Iterable[AsyncSocket], *, draining: bool) -> ServerFigures:
        """Return what was counted; `connections` are those that there are, and the streams of HTTP/2."""
        there = tuple(connections)
        # What goes over a stream goes over its connection.
        sockets = [ws for ws in there if not is_stream(ws)]
        kinds = Counter(kind_of(ws) for ws in there)
        return ServerFigures(
            sockets=len(sockets),
            accepted=self.accepted,
            connections=kinds["websocket"],
            opened=self.opened,
            closes=dict(self.closes),
            refusals=dict(self.refusals),
            responses=dict(self.responses),
            bytes_received=self._bytes_received + sum(ws.bytes_received for ws in sockets),
            bytes_sent=self._bytes_sent + sum(ws.bytes_sent for ws in sockets),
            slow=self.slow,
            drained=self.drained,
            retired=self.retired,
            aborted=self.aborted,
            draining=draining,
            streams=kinds["stream"],
            polls=kinds["poll"],
            lag=self.lag.figures(),
            round_trips=self.round_trips.figures(),
            proxies_refused=self.proxies_refused,
            http2_connections=kinds["http2"],
            http2_streams=len(there) - len(sockets),
        )


def kind_of(ws: AsyncSocket) -> str:
    """Return what a connection is for now: "websocket", "stream", "poll" or "http"."""
    return "websocket" if ws.handler is None else ws.handler.kind


def path_of(head: bytes) -> str:
    """Return the target of a request as it came; "-" where none came."""
    words = first_line(head).split(" ")
    return words[1] if len(words) > 1 else "-"
