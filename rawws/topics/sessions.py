"""Sessions: the connections of identified clients: each until when it lasts, and those that one user has.

Laws:
1. A client whose identity expires is told in time, and closed if it brings no other one. Nothing that it asks for
   behind that, or behind `disconnect`, is done.
2. A renewed identity is of the same user.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.identity import Identity

__all__ = ["UNAUTHORIZED", "ClientSession", "ClientSessions", "close_code_of"]

# The close code of a client that nobody knows, or knows no more: 4000 and the status, as is common use (IANA's 3000 is
# for any reason that is not told).
UNAUTHORIZED: Final = 4401
# So many seconds before the end of an identity its client is told; or where half of it is over, if that is later.
NOTICE = 60.0
NOTICE_SHARE = 0.5
# The longest that a timer waits: what the clock of the world says is looked at again.
LOOK: Final = 3600.0


def close_code_of(status: int) -> int:
    """Return the close code for a status: 4000 more for what a client did wrong, else 1013, for it may try again."""
    return 4000 + status if 400 <= status < 500 else 1013


@final
class ClientSession:
    """The connection of an identified client: `end(code, reason)` closes it, `tell(seconds)` says how long it lasts."""

    __slots__ = ("connection", "end", "identity", "notice", "over", "tell", "timer")

    def __init__(
        self,
        connection: Any,
        identity: Identity,
        end: Callable[[int, str], object],
        tell: Callable[[float], object] | None,
    ) -> None:
        self.connection = connection
        self.end = end
        self.tell = tell
        self.timer: asyncio.TimerHandle | None = None
        # So many seconds before its end the client is told, 0 where it is not, or not again.
        self.notice = 0.0
        self.over = False
        self.renew(identity)

    def renew(self, identity: Identity) -> None:
        """Last for as long as another identity does."""
        self.identity = identity
        left = identity.left()
        self.notice = 0.0 if left is None or self.tell is None else min(NOTICE, left * NOTICE_SHARE)
        self.watch()

    def watch(self) -> None:
        """Do what is due, and look again when more is."""
        self.stop()
        left = self.identity.left()
        if left is None or self.over:
            return
        if left <= 0:
            self.close(UNAUTHORIZED, "the identity has expired")
            return
        if self.tell is not None and 0 < left <= self.notice:
            self.notice = 0.0
            self.tell(left)
        self.timer = asyncio.get_running_loop().call_later(min(left - self.notice, LOOK), self.watch)

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
        self.stop()
        self.over = True
        self.end(code, reason)

    def stop(self) -> None:
        """Watch no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@final
class ClientSessions:
    """The sessions of a hub, by what they are of: a WebSocket or an event stream."""

    __slots__ = ("_sessions", "_users")

    def __init__(self) -> None:
        self._sessions: dict[Any, ClientSession] = {}
        self._users: dict[str, set[ClientSession]] = {}

    def begin(
        self,
        connection: Any,
        identity: Identity | None,
        end: Callable[[int, str], object],
        tell: Callable[[float], object] | None = None,
    ) -> None:
        """Have a connection last as long as its identity; it is nobody's where that is None."""
        if identity is not None:
            session = self._sessions[connection] = ClientSession(connection, identity, end, tell)
            self._users.setdefault(identity.user, set()).add(session)

    def end(self, connection: Any) -> None:
        """Forget a connection that is over."""
        session = self._sessions.pop(connection, None)
        if session is not None:
            session.stop()
            session.over = True
            known = self._users[session.identity.user]
            known.discard(session)
            if not known:
                del self._users[session.identity.user]

    def renew(self, connection: Any, identity: Identity) -> None:
        """Have a connection last as long as another identity of its user."""
        self._sessions[connection].renew(identity)

    def is_over(self, connection: Any) -> bool:
        """Tell whether what a connection asks for is not to be done any more."""
        session = self._sessions.get(connection)
        if session is None:
            return False
        if not session.over and session.identity.is_over():
            session.watch()
        return session.over

    def of(self, user: str) -> list[ClientSession]:
        """Return the sessions of a user that are not over."""
        return [session for session in self._users.get(user, ()) if not session.over]
