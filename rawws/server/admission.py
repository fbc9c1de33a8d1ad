"""Admission: how many connections there are, in all and from one address, and how fast an address opens them.

Laws:
1. No timer for an address: a rate is one number, as in `rawws.net.rate`.
2. What is remembered of addresses is bounded as well.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, final

from rawws import clock
from rawws.errors import HttpError
from rawws.net.peer_addresses import network_of

if TYPE_CHECKING:
    from rawws.protocol.deflate import DeflateParameters

__all__ = ["ACCEPTS", "REFUSALS", "RETRY_AFTER", "AdmissionControl", "most_connections"]

# So many seconds of an even rate of handshakes may come at once: behind one address there may be an office, whose pages
# all come back after a restart.
HANDSHAKE_BURST = 10.0
# So many connections over `max_connections` are told so at a time; more are cut, for an answer holds a descriptor too.
REFUSALS = 16
# How many connections asyncio takes before the first is looked at. With all its backlog it would be out of descriptors
# before this side can refuse, and then it logs an error for each of the backlog, every second.
ACCEPTS = 32
# Of the descriptors of a process so many, or one in so many, are left to the rest of the program.
RESERVE, SHARE = 64, 20
# Addresses whose handshakes are counted; the oldest is forgotten first. About 10 MiB.
ADDRESSES = 65536
# When a client may come back that was told that there are too many, in seconds.
RETRY_AFTER = 5


@final
class AdmissionControl:
    """Who is let in. Its methods raise HttpError with the status that says for whom it is too much."""

    __slots__ = ("_addresses", "_compressing", "_counts", "_handshake", "_per_address", "_seen", "memory")

    def __init__(self, per_address: int | None, handshake_rate: float | None) -> None:
        self._per_address = per_address
        self._counts: dict[str, int] = {}
        self._addresses: dict[Any, str] = {}
        self._handshake = 1 / handshake_rate if handshake_rate else 0.0
        # When the handshakes of an address would have been due; those that came last stand at the end.
        self._seen: dict[str, float] = {}
        # Bytes that the compressors of connections hold between messages.
        self._compressing: dict[Any, int] = {}
        self.memory = 0

    def enter(self, connection: Any) -> None:
        """Count a connection for its address; behind a proxy, that may change with each request."""
        if self._per_address is None:
            return
        key = network_of(connection.remote_address)
        if key == self._addresses.get(connection):
            return
        self._forget(connection)
        if key is None:
            return
        count = self._counts.get(key, 0)
        if count >= self._per_address:
            # RFC 6585 4: "The 429 status code indicates that the user has sent too many requests"; the response "MAY
            # include a Retry-After header".
            raise too_many(f"{key} has {count} connections, the limit for one address", RETRY_AFTER)
        self._counts[key] = count + 1
        self._addresses[connection] = key

    def shake_hands(self, connection: Any) -> None:
        """Count a handshake of the address of a connection."""
        key = network_of(connection.remote_address) if self._handshake else None
        if key is None:
            return
        now = clock.monotonic()
        seen = self._seen
        due = max(seen.pop(key, 0.0), now)
        for oldest in [next(iter(seen))] if seen else []:
            if seen[oldest] <= now or len(seen) >= ADDRESSES:
                del seen[oldest]
        # In this order nothing is lost to rounding, and the first handshake is never late.
        late = (due - now) + (self._handshake - max(HANDSHAKE_BURST, self._handshake))
        seen[key] = due if late > 0 else due + self._handshake
        if late > 0:
            raise too_many(f"{key} begins connections too fast, allowed are {1 / self._handshake:g} a second", late)

    def hold(self, connection: Any, parameters: DeflateParameters, memory_level: int) -> None:
        """Count what the compressors of a connection hold."""
        size = 0
        # zlib's own formulas (zconf.h).
        if not parameters.server_no_context_takeover:
            size += (1 << (parameters.server_max_window_bits + 2)) + (1 << (memory_level + 9))
        if not parameters.client_no_context_takeover:
            size += (1 << parameters.client_max_window_bits) + 7168
        if size:
            self._compressing[connection] = size
            self.memory += size

    def leave(self, connection: Any) -> None:
        """Count a connection no more."""
        self._forget(connection)
        self.memory -= self._compressing.pop(connection, 0)

    def _forget(self, connection: Any) -> None:
        key = self._addresses.pop(connection, None)
        if key is not None:
            count = self._counts.pop(key) - 1
            if count:
                self._counts[key] = count


def too_many(reason: str, seconds: float) -> HttpError:
    """Return the error for a client that asks too much."""
    return HttpError(429, reason, (("Retry-After", str(ceil(seconds))),))


def most_connections() -> int | None:
    """Return how many connections the descriptors of this process are enough for, None for any number."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else max(1, soft - max(RESERVE, soft // SHARE))
