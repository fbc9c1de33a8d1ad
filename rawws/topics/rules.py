"""Rules: what the application says of its clients: who they are, what they may do, and what they may say.

Laws:
1. What the application raises is its own error, and ends one connection or request; Refused and HttpError are told.
2. Nothing of a request is done before all of it is known to be allowed.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, TypeVar, final

from rawws.errors import HttpError, LocalProtocolError
from rawws.net.cancellation import called
from rawws.net.identity import Identity

from .envelope import NAMESPACE_END
from .names import TopicError
from .patterns import Pattern, text_of
from .payloads import members_of, of_user, payload_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rawws.net.websocket import WebSocket

    from .history import Publication

__all__ = ["ClientRules", "Refused"]

Answer = TypeVar("Answer")


@final
class Refused(TopicError):
    """What `authorize`, `on_subscribe` and `on_publish` raise to refuse, with a reason that the client is told."""

    def __init__(self, reason: str = "") -> None:
        super().__init__("refused", reason)


@final
class ClientRules:
    """The functions that the application gave a hub, each None where it gave none; `rawws.Hub` explains them."""

    __slots__ = (
        "authorize", "authorize_pattern", "claims", "excluded", "identify", "namespace", "on_publish", "on_subscribe",
    )  # fmt: skip

    def __init__(
        self,
        authorize: Callable[[Any, str, str], bool | Awaitable[bool]] | None = None,
        identify: Callable[[Any], Identity | Awaitable[Identity | None] | None] | None = None,
        on_subscribe: Callable[[Any, str], Awaitable[None] | None] | None = None,
        on_publish: Callable[[Any, str, Any], Any] | None = None,
        authorize_pattern: Callable[[Any, str], bool | Awaitable[bool]] | None = None,
        namespace: Callable[[Any], str] | None = None,
        *,
        claims: bool = True,
    ) -> None:
        self.namespace = namespace
        self.authorize = authorize
        self.identify = identify
        self.on_subscribe = on_subscribe
        self.on_publish = on_publish
        self.authorize_pattern = authorize_pattern
        # Names the WebSocket of this server that does not get a publication, whoever published it, and wherever. It
        # raises nothing.
        self.excluded: Callable[[Publication], WebSocket | None] | None = None
        # Whether others are told what clients say of themselves.
        self.claims = claims

    def namespace_of(self, client: Any) -> str:
        """Return what stands before all names of topics that a client says, with a `/` at its end; "" for nothing."""
        return "" if self.namespace is None else f"{called('namespace', self.namespace, client)}{NAMESPACE_END}"

    def may(self, client: Any, action: str, topic: str) -> bool | Awaitable[bool]:
        """Ask whether a client may do something. Raises LocalProtocolError where nobody was named who knows.

        Of patterns, `authorize` is never asked: one that says no to some names does not know that they are meant too.
        """
        if isinstance(topic, Pattern):
            if self.authorize_pattern is None:
                raise Refused("patterns are not allowed here")
            allowed = called("authorize_pattern", self.authorize_pattern, client, topic.text)
            return allowed if inspect.isawaitable(allowed) else bool(allowed)
        if self.authorize is None:
            raise LocalProtocolError("the hub has no authorize, needed is a function that says what clients may do")
        verdict = called("authorize", self.authorize, client, action, topic)
        return verdict if inspect.isawaitable(verdict) else bool(verdict)

    def introduce(self, client: Any) -> Awaitable[None] | None:
        """Find out who a client is, and have it know; return what that waits for. Raises HttpError for nobody.

        A client of which the application said who it is, is not asked.
        """
        if self.identify is None or client.identity is not None:
            return None
        found = called("identify", self.identify, client)
        if inspect.isawaitable(found):
            return introduce_later(client, found)
        client.identity = checked(found)
        return None

    def renewed(self, client: Any, token: str) -> Identity | Awaitable[Identity]:
        """Return who a client is by another token; or an awaitable of that. Raises Refused for anybody else."""
        if self.identify is None or client.identity is None:
            raise Refused("there is nothing to renew")
        before, client.token = client.token, token
        try:
            found = called("identify", self.identify, client)
        except HttpError as error:
            client.token = before
            raise Refused(error.reason) from None
        if inspect.isawaitable(found):
            return renewed_later(client, found, before)
        return same_user(client, found, before)

    def admit(self, client: Any, topic: str) -> Awaitable[None] | None:
        """Tell the application that a client is about to subscribe. Raises what that raises."""
        if self.on_subscribe is None:
            return None
        waiting = called("on_subscribe", self.on_subscribe, client, text_of(topic))
        return waiting if inspect.isawaitable(waiting) else None

    def edit(self, client: Any, topic: str, message: Any, extra: str) -> tuple[Any, str] | Awaitable[tuple[Any, str]]:
        """Return what is published of what a client says, and the members beside it; or an awaitable of both.

        They say who it is, as far as that is known. Raises Refused for what is not to be published.
        """
        user = None if client.identity is None else client.identity.user
        if self.on_publish is None:
            return message, of_user(extra, user)
        members = members_of(extra)
        data = json.loads(message) if members.get("json") else message
        edited = called("on_publish", self.on_publish, client, topic, data)
        event = members.get("event")
        return edit_later(edited, event, user) if inspect.isawaitable(edited) else edited_payload(edited, event, user)


def checked(found: object) -> Identity | None:
    """Return what `identify` returned. Raises HttpError(401) where that is over already, TypeError for what is none."""
    if found is not None and not isinstance(found, Identity):
        raise TypeError(f"identify returned {type(found).__name__}, allowed are a rawws.Identity and None")
    if found is not None and found.is_over():
        raise HttpError(401, "the identity has expired")
    return found


async def introduce_later(client: Any, found: Awaitable[Any]) -> None:
    client.identity = checked(await found)


async def renewed_later(client: Any, found: Awaitable[Any], before: str) -> Identity:
    try:
        awaited = await found
    except HttpError as error:
        client.token = before
        raise Refused(error.reason) from None
    return same_user(client, awaited, before)


def same_user(client: Any, found: object, before: str) -> Identity:
    """Return who a client is that says it is who it was: what it is subscribed to was allowed to that one."""
    try:
        identity = checked(found)
    except HttpError as error:
        client.token = before
        raise Refused(error.reason) from None
    if identity is None or identity.user != client.identity.user:
        client.token = before
        raise Refused("the token is of somebody else")
    client.identity = identity
    return identity


async def edit_later(edited: Awaitable[Any], event: str | None, user: str | None) -> tuple[Any, str]:
    return edited_payload(await edited, event, user)


def edited_payload(edited: Any, event: str | None, user: str | None) -> tuple[Any, str]:
    """Return what is to be published, and the members beside it. Raises Refused for nothing."""
    if edited is None:
        raise Refused
    message, extra = payload_of(edited, event)
    return message, of_user(extra, user)
