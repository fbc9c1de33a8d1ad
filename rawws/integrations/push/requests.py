"""Push requests: what is sent to a service over HTTP/2 or HTTP/1.1, and an answer of bounded size, by httpx2.

Laws:
1. Every request ends by its time, and holds a bounded part of an answer.
2. No redirect is followed, no cookie is kept, no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import json
import re
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.errors import RawwsError
from rawws.integrations.unlogged import unlogged

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from .messages import PushDevice

__all__ = ["PushAnswer", "PushClient", "PushFailed", "PushRequest", "SingleHost", "retry_wait", "word_of"]

# Seconds until an answer must be there, and bytes of it: the services answer some 100.
TIMEOUT: Final = 10.0
MAX_ANSWER: Final = 16 << 10
# A service may ask for no more than this, in seconds.
LONGEST_WAIT: Final = 3600.0
# Connections that there are: one for each request under way, over HTTP/1.1; those that are kept, and for how many
# seconds: APNs wants its connection to be used again.
MAX_CONNECTIONS: Final = 100
CONNECTIONS: Final = 20
KEEP_ALIVE: Final = 60.0
# What a service says is shown as a word, or not at all.
WORD: Final = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


class PushFailed(RawwsError):
    """A service gave no answer; it may later. In the text there is nothing of what it was sent."""


class PushRequest(NamedTuple):
    """A POST to a service."""

    url: str
    headers: Iterable[tuple[str, str]]
    body: bytes


class PushAnswer(NamedTuple):
    """What a service answered: names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body, where it is an object of JSON, else {}."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@final
class PushClient:
    """The client of one service of a sender. Raises ImportError, with what to install, without httpx2."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        try:
            import httpx2  # noqa: PLC0415 - an extra
        except ImportError:
            raise ImportError("push needs httpx2 and cryptography: pip install 'rawws[push]'") from None
        limits = httpx2.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEP_ALIVE
        )
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                http2=True, verify=True if tls is None else tls, limits=limits, retries=1, trust_env=False
            ),
            headers={"Accept-Encoding": "identity", "User-Agent": "rawws-push"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,
            follow_redirects=False,
            trust_env=False,
        )

    async def send(self, request: PushRequest) -> PushAnswer:
        """Send a request, and return the answer, whatever its status. Raises PushFailed."""
        import httpx2  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._exchange(request)
        except TimeoutError:
            raise PushFailed(f"no answer within {TIMEOUT:g} s") from None
        except httpx2.HTTPError as error:
            # Its text may have the URL, and so a token of a device.
            raise PushFailed(type(error).__name__) from None

    async def _exchange(self, request: PushRequest) -> PushAnswer:
        asked = self._client.build_request("POST", request.url, content=request.body, headers=list(request.headers))
        with unlogged():
            response = await self._client.send(asked, stream=True)
        try:
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise PushFailed(f"the answer is over {MAX_ANSWER} bytes, the limit")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return PushAnswer(response.status_code, headers, bytes(body))
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class SingleHost:
    """A service that is one host, by its `name`."""

    name: str

    def host_of(self, device: PushDevice) -> str:  # noqa: ARG002 - as services have it
        """Return who is asked for a device: there is one."""
        return self.name


def retry_wait(answer: PushAnswer) -> float:
    """Return after how many seconds a service wants to be asked again, 0 where it does not say (RFC 9110 10.2.3)."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0


def word_of(value: object) -> str:
    """Return what a service says, if that is one word, else ""."""
    return value if isinstance(value, str) and WORD.fullmatch(value) else ""
