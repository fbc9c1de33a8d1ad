"""Pusher users: who signed in to which connection, who watches whom, and what is done to all connections of a user.

Each user has a topic in the control hub, in which its connections are present at whatever instance, and whom it is
watched by look on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.topics import Notice

from .pusher_rules import MAX_USER_ID, USER_CHANNEL, is_name, is_signed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.topics import Publication

    from .config import AppConfig
    from .events import GatewayEvent
    from .model import Gateway
    from .pusher_wire import SpokenConnection

__all__ = ["TERMINATE", "Users", "end_in", "user_topic"]

logger = logging.getLogger("rawws.gateway")

BEGIN: Final = "user/"
# In bytes, as a hub has it.
MAX_TOPIC: Final = 255
MOST_WATCHED: Final = 100
TERMINATE: Final = "terminate"
TERMINATED: Final = 4009
ENDED: Final = "the connections of the user were ended"
WATCHLIST_FULL: Final = 4302


def user_topic(app: str, user: str) -> str:
    """Return the topic of a user in the control hub, whose name has up to 255 bytes: as many as a topic."""
    topic = f"{BEGIN}{app}/{user}"
    octets = topic.encode("utf-8", "surrogatepass")
    # No app has ~ in its id, so there is no user whose topic this is by name.
    return topic if len(octets) <= MAX_TOPIC else f"{BEGIN}~{app}/{hashlib.sha256(octets).hexdigest()}"


def end_in(publication: Publication, code: int) -> tuple[int, str] | None:
    """Return the code and the reason by which connections of a user are to end; `code` where the order has none."""
    message = publication.message
    if not isinstance(message, str) or message.partition(" ")[0] != TERMINATE:
        return None
    _, _, said = message.partition(" ")
    given, _, reason = said.partition(" ")
    return int(given or code), reason or ENDED


@final
class Users:
    """Those who signed in, by the connections of this instance."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # What their server says of them, for presence channels.
        self._infos: dict[SpokenConnection, Any] = {}
        # Whom each connection was told to be online, of those that it watches.
        self._online: dict[SpokenConnection, set[str]] = {}

    def info_of(self, connection: SpokenConnection) -> Any:
        """Return what the server said of the user of a connection."""
        return self._infos.get(connection)

    def sign_in(self, connection: SpokenConnection, app: AppConfig, fields: dict[str, Any]) -> str:
        """Have a connection be that of a user; return what is wrong with it, "" for nothing."""
        told = fields.get("user_data")
        if not isinstance(told, str) or not is_signed(
            app, fields.get("auth"), f"{connection.id.socket_id}::user::{told}"
        ):
            return "the signature of the user is wrong or missing"
        try:
            data = json.loads(told)
        except (ValueError, RecursionError):
            data = None
        user = data.get("id") if isinstance(data, dict) else None
        if not is_name(user, MAX_USER_ID):
            return f"the id of the user is no text of 1 to {MAX_USER_ID} characters"
        if connection.user:
            return "" if connection.user == user else "another user is signed in"
        try:
            identity = rawws.Identity(user)
            watched = self._watched(connection, data.get("watchlist"))
            self._gateway.control.subscribe(connection, user_topic(app.id, user), join=identity)
        except (rawws.TopicError, ValueError) as error:
            return str(error)
        connection.user = user
        self._infos[connection] = data.get("user_info")
        self._gateway.count(app.id, f"u:{user}", 1)
        connection.tell("pusher:signin_success", {"user_data": told})
        self._watch(connection, [each for each in watched if each != user])
        return ""

    def leave(self, connection: SpokenConnection) -> None:
        """Forget who a connection was."""
        self._infos.pop(connection, None)
        self._online.pop(connection, None)
        if connection.user:
            self._gateway.count(connection.app, f"u:{connection.user}", -1)

    def take(self, connection: SpokenConnection, publication: Publication) -> bool:
        """Take what comes of users; tell whether it was that."""
        topic = publication.topic
        if not topic.startswith(BEGIN) or topic.count("/") < 2:
            return False
        if not isinstance(publication, Notice):
            end = end_in(publication, TERMINATED)
            if topic == user_topic(connection.app, connection.user) and end is not None:
                connection.refuse(*end)
            return True
        present = publication.present
        if present is not None and topic != user_topic(connection.app, connection.user):
            count = self._gateway.control.connections(topic, present.user)
            if count == (1 if publication.event == "join" else 0):
                self._tell(connection, "online" if count else "offline", [present.user])
        return True

    def begin_missed(self, app: AppConfig, channels: Iterable[str], event: GatewayEvent) -> None:
        """Have it be told who missed an event in the channels of users, where somebody of the app hears of that."""
        if app.tells_missed:
            for channel in channels:
                if channel.startswith(USER_CHANNEL):
                    user = channel.removeprefix(USER_CHANNEL)
                    self._gateway.start(self.tell_missed(app.id, user, event))

    async def tell_missed(self, app: str, user: str, event: GatewayEvent) -> None:
        """Tell of an event for a user, if that is signed in to no connection of any instance."""
        control, topic = self._gateway.control, user_topic(app, user)
        try:
            found = control.when_ready([topic], "", lambda: control.connections(topic, user))
            count = await found if isinstance(found, Awaitable) else found
        except rawws.TopicError as error:
            logger.warning("it is not known whether an event for a user was missed: %s", error)
            return
        if not count:
            self._gateway.missed(app, user, event)

    def terminate(self, app: str, user: str, code: int | None = None, reason: str = "") -> None:
        """Close all connections of a user of one app, at all instances; without a code, with that of each face."""
        order = TERMINATE if code is None else f"{TERMINATE} {code} {reason}"
        self._gateway.control.publish(user_topic(app, user), order)

    def _watched(self, connection: SpokenConnection, watchlist: object) -> list[str]:
        """Return whom a user watches; of too many the first."""
        found = [each for each in watchlist if isinstance(each, str)] if isinstance(watchlist, list) else []
        if len(found) > MOST_WATCHED:
            connection.complain(WATCHLIST_FULL, f"the watchlist has {len(found)} users, limit {MOST_WATCHED}")
        return list(dict.fromkeys(found[:MOST_WATCHED]))

    def _watch(self, connection: SpokenConnection, users: list[str]) -> None:
        """Tell who of those is online, and have it told who comes and goes."""
        control, waiting, online = self._gateway.control, [], []
        for user in users:
            topic = user_topic(connection.app, user)
            try:
                subscription = control.subscribe(connection, topic, watch=True)
            except rawws.TopicError:
                # What is no name of a user can never be online.
                continue
            if subscription.pending:
                waiting.append((user, subscription))
            elif control.connections(topic, user):
                online.append(user)
        if online:
            self._tell(connection, "online", online)
        if waiting:
            self._gateway.start(self._look_later(connection, waiting))

    async def _look_later(self, connection: SpokenConnection, waiting: list[tuple[str, Any]]) -> None:
        """Tell who is online as soon as it is known."""
        control, online = self._gateway.control, []
        for user, subscription in waiting:
            # Where the engine cannot serve the topic, nothing is known of that user.
            with contextlib.suppress(rawws.TopicError):
                await subscription
            if control.connections(user_topic(connection.app, user), user):
                online.append(user)
        if online:
            with contextlib.suppress(rawws.ConnectionClosed):
                self._tell(connection, "online", online)

    def _tell(self, connection: SpokenConnection, name: str, users: list[str]) -> None:
        """Tell what is news of them, unless the one who watches is gone."""
        if connection not in self._infos:
            return
        online = self._online.setdefault(connection, set())
        users = [user for user in users if (user in online) != (name == "online")]
        if not users:
            return
        if name == "online":
            online.update(users)
        else:
            online.difference_update(users)
        connection.tell("pusher_internal:watchlist_events", {"events": [{"name": name, "user_ids": users}]})
