"""Outgoing: requests to a backend that may hang, break or never end, to answers of bounded size within a bounded time.

Laws:
1. Every call ends by its timeout, waiting for its turn included, and holds at most `max_answer` octets of an answer.
2. A URL whose calls fail is left alone for a while: its breaker is open, and calls fail at once.
3. A request is sent again only where not an octet of it was sent. What is safe beside that, the caller knows.
4. No redirect is followed, no cookie is kept, no proxy of the environment is used: a call goes where it was sent to.
5. No URL is logged: it may have a password, or what a client said.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final, NamedTuple, final

from rawws import clock
from rawws.errors import RawwsError
from rawws.integrations.unlogged import unlogged
from rawws.net.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from httpx2 import AsyncBaseTransport, AsyncClient, Request, Response

__all__ = ["BackendAnswer", "Breaker", "CallFailed", "Outgoing"]

# As API Gateway has it for a message, and so for what a route may answer.
MAX_ANSWER: Final = 128 * 1024
# Calls under way to one URL, of one instance; more wait for their turn.
MAX_CALLS: Final = 100
# Of a breaker: failures in a row, or half of the last so many within so many seconds.
IN_A_ROW: Final = 5
WINDOW, WITHIN = 20, 30.0
# How long it stays open at first and at most, in seconds.
FIRST_OPEN, LONGEST_OPEN = 10.0, 60.0
CLOSED, HALF_OPEN, OPEN = range(3)
# How long a connection is kept that is not used, in seconds: Node and uvicorn close theirs after 5.
KEEP_ALIVE = 4.0


class CallFailed(RawwsError):
    """A call has no answer; `outcome` says why in one word, and `status` is what HTTP has for it.

    `refused` (no connection), `timeout`, `broken` (the connection ended, or it is no HTTP), `too_large`, `encoded` (in
    a way that was not asked for), `open` (by the breaker).
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.status = STATUSES[outcome]


# RFC 9110 section 15.6: 502 for an invalid response, 503 for later, 504 for none in time.
STATUSES: Final[Mapping[str, int]] = {
    "refused": 502,
    "timeout": 504,
    "broken": 502,
    "too_large": 502,
    "encoded": 502,
    "open": 503,
}


class BackendAnswer(NamedTuple):
    """What a backend answered: header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header, None where there is none."""
        return next((value for each, value in self.headers if each == name.lower()), None)


@final
class Breaker:
    """Whether a URL may be called: closed as long as it answers, open after failures, then one call tries.

    Failures are no connection, a timeout, what is no HTTP, and a status of 5xx. Times are those of `rawws.clock`.
    """

    __slots__ = ("in_a_row", "last", "left_until", "opened_for", "trying")

    def __init__(self) -> None:
        self.in_a_row = 0
        self.last: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        # Until when it is open; how long that was; and whether the one call that tries is under way.
        self.left_until = 0.0
        self.opened_for = 0.0
        self.trying = False

    @property
    def state(self) -> int:
        """CLOSED, HALF_OPEN where one call may try, or OPEN."""
        if not self.opened_for:
            return CLOSED
        return OPEN if clock.monotonic() < self.left_until else HALF_OPEN

    def begin(self) -> bool:
        """Tell whether a call may begin; it then ends by `end`."""
        if self.opened_for:
            if self.trying or clock.monotonic() < self.left_until:
                return False
            self.trying = True
        return True

    def end(self, *, failed: bool | None, tried: bool) -> None:
        """Count a call that ended; None for one that says nothing about the URL. `tried` is the one call that tries."""
        if tried:
            self.trying = False
        if failed is None:
            return
        now = clock.monotonic()
        self.last.append((now, failed))
        self.in_a_row = self.in_a_row + 1 if failed else 0
        if not failed:
            if tried:
                self.opened_for = 0.0
                self.last.clear()
        elif tried or (not self.opened_for and self._is_bad(now)):
            self.opened_for = min(LONGEST_OPEN, self.opened_for * 2 or FIRST_OPEN)
            self.left_until = now + self.opened_for

    def _is_bad(self, now: float) -> bool:
        failures = sum(failed for at, failed in self.last if now - at <= WITHIN)
        return self.in_a_row >= IN_A_ROW or (len(self.last) == WINDOW and failures * 2 >= WINDOW)


@final
class _Target:
    """What is known of a URL."""

    __slots__ = ("breaker", "calls", "outcomes", "times", "turns")

    def __init__(self, most: int) -> None:
        self.breaker = Breaker()
        self.turns = asyncio.Semaphore(most)
        self.calls = 0
        self.outcomes: Counter[str] = Counter()
        # Of the calls that were sent, whatever came of them.
        self.times = Histogram()


@final
class Outgoing:
    """The one client for all calls of an instance, by HTTP/1.1; close it in the loop that used it.

    `transport` is another way to bring requests to a backend, as httpx2 has them. Raises ImportError, with what to
    install, where httpx2 is missing.
    """

    __slots__ = ("_client", "_max_answer", "_max_calls", "targets")

    def __init__(
        self,
        *,
        max_answer: int = MAX_ANSWER,
        max_calls: int = MAX_CALLS,
        transport: AsyncBaseTransport | None = None,
    ) -> None:
        self._max_answer = max_answer
        self._max_calls = max_calls
        self._client = _client(transport)
        # By URL: those of the configuration, so there are not more than that has.
        self.targets: dict[str, _Target] = {}

    async def call(
        self,
        url: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        *,
        timeout: float,  # noqa: ASYNC109 - it is a limit of the protocol, and told from a cancellation
        method: str = "POST",
        target: str | None = None,
    ) -> BackendAnswer:
        """Send a request, and return its answer, whatever its status. Raises CallFailed.

        What is counted together, the breaker too, is what has the same `target`, by default the URL.
        """
        counted = self.targets.get(target or url)
        if counted is None:
            counted = self.targets[target or url] = _Target(self._max_calls)
        request = self._client.build_request(
            method,
            url,
            content=body,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers],
        )
        try:
            answer = await self._take_turn(counted, request, asyncio.get_running_loop().time() + timeout)
        except CallFailed as error:
            counted.outcomes[error.outcome] += 1
            raise
        except TimeoutError:
            counted.outcomes["timeout"] += 1
            raise CallFailed("timeout", f"the backend did not answer within {timeout:g} s") from None
        counted.outcomes[f"{answer.status // 100}xx"] += 1
        return answer

    async def _take_turn(self, target: _Target, request: Request, deadline: float) -> BackendAnswer:
        """Send a request when there are not too many of its kind under way, and its URL is not left alone."""
        if target.breaker.state != OPEN:
            async with asyncio.timeout_at(deadline):
                await target.turns.acquire()
            try:
                if target.breaker.begin():
                    return await self._send(target, request, deadline)
            finally:
                target.turns.release()
        raise CallFailed("open", "the backend failed before, and is left alone for a while")

    async def _send(self, target: _Target, request: Request, deadline: float) -> BackendAnswer:
        """Send a request, and tell the breaker what came of it."""
        failed: bool | None = None  # of one that is cancelled, nothing is known
        # Others may be under way still that began before it was opened: they do not close it.
        breaker, tried = target.breaker, target.breaker.trying
        target.calls += 1
        began = clock.monotonic()
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._exchange(request)
            failed = answer.status >= 500
        except (CallFailed, TimeoutError):
            failed = True
            raise
        finally:
            target.calls -= 1
            target.times.observe(clock.monotonic() - began)
            breaker.end(failed=failed, tried=tried)
        return answer

    async def _exchange(self, request: Request) -> BackendAnswer:
        """Send a request and read its answer. Raises CallFailed, and whatever cancels it."""
        import httpx2  # noqa: PLC0415 - an extra

        try:
            with unlogged():
                response = await self._client.send(request, stream=True)
            try:
                return BackendAnswer(response.status_code, _fields(response), await self._read(response))
            finally:
                await response.aclose()
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise CallFailed("refused", "the backend takes no connection") from None
        except httpx2.TransportError:
            raise CallFailed("broken", "the connection to the backend broke, or what came is not HTTP") from None

    async def _read(self, response: Response) -> bytes:
        """Return the body, as long as it is not longer than it may be."""
        # What is small here may be huge when it is decoded, so it is not: nobody was asked for it.
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise CallFailed("encoded", "the answer has a Content-Encoding, asked for was none")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > self._max_answer:
                raise CallFailed("too_large", f"the answer is over {self._max_answer} bytes, the limit")
        return bytes(body)

    def forgive(self, target: str) -> None:
        """Have a URL be called that was left alone."""
        found = self.targets.get(target)
        if found is not None:
            found.breaker = Breaker()

    async def close(self) -> None:
        """Close the connections to all backends."""
        await self._client.aclose()


def _client(transport: AsyncBaseTransport | None) -> AsyncClient:
    """Return a client that goes where it is sent, and keeps nothing of it."""
    try:
        import httpx2  # noqa: PLC0415 - an extra
    except ImportError:
        raise ImportError("the gateway needs httpx2: pip install 'rawws[gateway]'") from None
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_CALLS, keepalive_expiry=KEEP_ALIVE)
    return httpx2.AsyncClient(
        # Once more where there was no connection, and so not an octet was sent.
        transport=transport or httpx2.AsyncHTTPTransport(retries=1, limits=limits, trust_env=False),
        headers={"Accept-Encoding": "identity", "User-Agent": "rawws-gateway"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,
        follow_redirects=False,
        trust_env=False,
    )


def _fields(response: Response) -> tuple[tuple[str, str], ...]:
    """Return the header fields of an answer, their values as octets have them."""
    return tuple((name.decode("ascii").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
