"""Publishing without asyncio: a message to a hub, wherever that is, by its HTTP API (docs/use/api.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rawws.client.publishing import post_publication

from .background import background

if TYPE_CHECKING:
    import ssl as ssl_module

__all__ = ["publish"]


def publish(
    url: str,
    topic: str,
    data: Any,
    *,
    key: str,
    event: str | None = None,
    timeout: float | None = 10,
    ssl: ssl_module.SSLContext | bool | None = None,
    proxy: str | bool | None = True,
    path: str | None = None,
) -> str:
    """Publish to a topic by the HTTP API of a hub at `url`, with one of its keys; return the publication's cursor.

    `data` is a str, which is published as it is, bytes, or what JSON can say, which is published as JSON. `event` is
    the name of an event. `timeout` spans all of it, in seconds; `ssl`, `proxy` and `path` are as with `rawws.connect`.
    No redirect is followed.

    Raises OSError where it cannot connect or takes too long (TimeoutError), InvalidStatus for a refusal, whose reason
    is the server's, InvalidMessage for another answer, InvalidURI, LocalProtocolError for a key that cannot be sent,
    TypeError and ValueError for what is no JSON. Where no answer came, it may be published nevertheless.
    """
    return background().run(
        post_publication(url, topic, data, key=key, event=event, timeout=timeout, ssl=ssl, proxy=proxy, path=path)
    )
