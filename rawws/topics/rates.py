"""Rates: how many topics a client may bring up that the hub does not know, for each costs memory and a question.

Law: a client has no more by reconnecting than its address has in all.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, final

from rawws import clock
from rawws.net.peer_addresses import network_of, parse_ip_address
from rawws.net.websocket import WebSocket

from .asgi_socket import AsgiSocket
from .names import TopicError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["TOPIC_RATE", "TopicRates"]

# A page asks for what it shows when it opens, and for little later: ten seconds' worth is as many topics as one
# subscriber may have by default, and an attacker waits for the rest.
TOPIC_RATE: Final = 100.0
# What may come at once, in seconds of the rate.
TOPIC_BURST: Final = 10.0
# An address has the rate of so many clients: several people may be behind one, but a request, or a handshake, for each
# thousand topics costs an attacker nothing.
CLIENTS_PER_ADDRESS: Final = 10
# Of so many names it is remembered that they were brought up, also where the hub has no topic of them: whoever only
# publishes has none. And of so many clients, when they may bring up more.
MAX_NAMES: Final = 10_000
MAX_CLIENTS: Final = 100_000


@final
class TopicRates:
    """How fast clients bring up topics: one number for each, as in `rawws.net.rate`."""

    __slots__ = ("_due", "_names", "_older", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        # When all that a client brought up would have been due, had it come evenly; the last client at the end.
        self._due: OrderedDict[Any, float] = OrderedDict()
        # By their hashes, a fifth of what long names take: those of now, and those before them.
        self._names: set[int] = set()
        self._older: set[int] = set()

    def account(self, client: Any, topics: Collection[str], known: Collection[str]) -> None:
        """Count the topics that a client brings up, of which the hub has those that are `known`.

        Raises TopicError where they are too many: then none of them counts.
        """
        new = [hash(topic) for topic in topics if topic not in known and not self._has(hash(topic))]
        if not new:
            return
        now = clock.monotonic()
        dues: dict[Any, float] = {}
        for key, clients in ((key_of(client), 1), (address_of(client), CLIENTS_PER_ADDRESS)):
            if key is not None:
                rate = self.rate * clients
                dues[key] = max(self._due.get(key, now), now) + len(new) / rate
                if dues[key] - now > TOPIC_BURST:
                    of = "" if clients == 1 else f" from {key}"
                    raise TopicError("limit", f"over {rate:g} new topics a second{of}, allowed is to ask again later")
        for name in new:
            if len(self._names) >= MAX_NAMES // 2:
                self._names, self._older = set(), self._names
            self._names.add(name)
        for key, due in dues.items():
            self._due[key] = due
            self._due.move_to_end(key)
            self._forget(now)

    def forget(self, client: Any) -> None:
        """Forget a connection that is gone, but not its address: the next one may be the object where this one was."""
        self._due.pop(key_of(client), None)

    def _has(self, name: int) -> bool:
        return name in self._names or name in self._older

    def _forget(self, now: float) -> None:
        """Forget two clients that may bring up as many as any other."""
        for _ in range(2):
            key, due = next(iter(self._due.items()))
            if due > now and len(self._due) <= MAX_CLIENTS:
                return
            del self._due[key]
            if not self._due:
                return


def key_of(client: Any) -> Any:
    """Return what a client is known by: a WebSocket, or the address of a request; None where it has none."""
    return id(client) if isinstance(client, (WebSocket, AsgiSocket)) else client.remote_address or None


def address_of(client: Any) -> str | None:
    """Return the address on the internet that a client comes from, the /64 of an IPv6 one.

    That of a private network is None: it may be that of a proxy which is none of `trusted_proxies`, with everybody
    behind it.
    """
    address = client.scope.get("client") if isinstance(client, AsgiSocket) else client.remote_address
    host = address[0] if isinstance(address, (tuple, list)) else None
    try:
        found = parse_ip_address(str(host))
    except ValueError:
        # A unix socket; and servers of ASGI may name anything.
        return None
    return network_of((str(host),)) if found.is_global else None
