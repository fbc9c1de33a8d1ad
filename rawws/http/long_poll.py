"""LongPoll: a response that is held until there is something to say, or nothing for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from rawws.errors import LocalProtocolError

from .responses import as_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.protocol.http11 import HttpResponse

    from .exchange import Exchange
    from .requests import HttpRequest

__all__ = ["POLL_TIMEOUT", "LongPoll"]

# Below the 30 s after which some proxies and load balancers give a request up (Heroku, HAProxy's usual setting).
POLL_TIMEOUT = 25.0


@final
class LongPoll:
    """A request that waits for its answer, for an HTTP endpoint to return.

    `respond` answers it; without that for `timeout` seconds, the answer is 204, and the client asks again. `on_close`
    is called with the poll when it ended otherwise: by the timeout, by a client that gave up, or with the server.
    """

    __slots__ = ("_answer", "_exchange", "_over", "on_close", "timeout")

    def __init__(self, timeout: float = POLL_TIMEOUT, *, on_close: Callable[[LongPoll], object] | None = None) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}, allowed are numbers above 0")
        self.timeout = timeout
        self.on_close = on_close
        self._answer: HttpResponse | None = None
        self._exchange: Exchange | None = None
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "waiting" if self._exchange is None else "open"
        return f"<rawws.LongPoll {state}>"

    # -- what users call

    def respond(self, answer: Any) -> bool:
        """Answer with a Response, or what an endpoint may return in its place; tell whether it was taken.

        It is taken once, and by a client that is there. Raises TypeError for what is no answer, RuntimeError in another
        thread than the event loop's.
        """
        response = as_response(answer)
        if self._over:
            return False
        if self._exchange is not None:
            self._exchange.check_thread()
        self._over = True
        self.on_close = None
        if self._exchange is None:
            self._answer = response
        else:
            self._exchange.respond_late(response)
        return True

    @property
    def closed(self) -> bool:
        """Whether the poll is over."""
        return self._over

    # -- what the exchange calls

    @property
    def kind(self) -> str:
        """What it sends."""
        return "poll"

    def begin(self, exchange: Exchange, request: HttpRequest) -> None:  # noqa: ARG002 - an EventStream asks it
        """Hold the response back. Raises LocalProtocolError for a poll that was held already."""
        if self._exchange is not None:
            raise LocalProtocolError("the poll is held for another request already, needed is one for each")
        self._exchange = exchange
        exchange.observe(self)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            exchange.respond_late(answer)
        else:
            exchange.set_deadline(self.timeout)

    def lose(self) -> None:
        """End the poll, and call `on_close`: the client has left."""
        if not self._over:
            self._over = True
            self._tell()

    def shut_down(self) -> None:
        """End with the server: the client asks again, whoever answers then."""
        self.expire()

    def expire(self) -> None:
        """Answer that there is nothing."""
        if not self._over and self._exchange is not None:
            self._over = True
            self._exchange.respond_late(as_response(None))
            self._tell()

    def _tell(self) -> None:
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            try:
                on_close(self)
            except Exception as error:
                if self._exchange is None:
                    raise
                self._exchange.log_failure("on_close of a poll failed", error)
