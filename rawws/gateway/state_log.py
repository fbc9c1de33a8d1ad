"""State log: what each instance has, in one order for all, to what is told of it: once, by one of them.

An instance publishes when it gets the first connection for a key, and when it loses the last one. All follow, and hold
for each key which instances have it. Who finds that more, or less, is the case than was told proposes to tell it. The
proposal that changes what was told holds, at all instances alike, since all read it in the same order; and its author
is who sends the hook.

Laws:
1. It does no I/O and reads no clock: records come in their order, and times are given to it.
2. Two instances that read the same records hold the same. What one finds out for itself (who is gone) proposes at most.
3. A key that nobody has for GRACE seconds is over; who comes back before that was never away.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["GRACE", "StateLog", "Transition", "best_instance"]

# Seconds: Pusher's channel_vacated and member_removed wait for so long.
GRACE: Final = 3.0
# Seconds after which who proposed, and did not see it come, proposes again.
REPEAT: Final = 2.0


class Transition(NamedTuple):
    """A key began, or ended; `author` is the instance whose proposal held."""

    key: str
    up: bool
    author: str


def best_instance(key: str, instances: Iterable[str]) -> str:
    """Return which of the instances tells of a key, the same for all that know of the same ones; "" of none.

    It is that with the highest hash of both (rendezvous hashing), so that few keys move when one comes or goes. All
    keys of one channel have one, so that its hooks leave in order.
    """
    shared = owner_of(key)
    return max(instances, key=lambda each: hashlib.blake2b(f"{each} {shared}".encode()).digest(), default="")


def owner_of(key: str) -> str:
    """Return what the keys of one channel have in common: `3/x` of `3/c:x` and `3/m:x:u1`; a key alone is its own."""
    app, _, rest = key.partition("/")
    parts = rest.split(":", 2)
    return f"{app}/{parts[1]}" if parts[0] in {"c", "m"} and len(parts) > 1 else key


@final
class StateLog:
    """What the records said so far, as `instance` reads them."""

    __slots__ = ("_proposed", "_unsettled", "holders", "instance", "told")

    def __init__(self, instance: str) -> None:
        self.instance = instance
        # By key, which instances have it, and none without one.
        self.holders: dict[str, set[str]] = {}
        # The keys that were told to be, and not yet to be over.
        self.told: set[str] = set()
        # Keys of which something else is told than is the case, since when.
        self._unsettled: dict[str, float] = {}
        # When this one proposed for a key.
        self._proposed: dict[str, float] = {}

    def apply(self, record: dict[str, Any], now: float) -> Transition | None:
        """Take the next record; return what is told from now on, if that changes. What is none of ours is ignored."""
        author = str(record.get("i", ""))
        if "tell" in record:
            return self._tell(str(record["tell"]), bool(record.get("up")), author, now)
        if "k" in record:
            self._hold(str(record["k"]), author, bool(record.get("up")), now)
        elif isinstance(record.get("all"), list):
            keys = set(map(str, record["all"]))
            for key in () if record.get("more") else [key for key, held in self.holders.items() if author in held]:
                if key not in keys:
                    self._hold(key, author, False, now)
            for key in keys:
                self._hold(key, author, True, now)
        return None

    def proposals(self, now: float, ready: Collection[str]) -> list[dict[str, Any]]:
        """Return the records that this instance is to publish: what is to be told, where it is the one who tells."""
        found = []
        for key, since in self._unsettled.items():
            up = key in self.holders
            if not up and now - since < GRACE:
                continue
            if now - self._proposed.get(key, float("-inf")) < REPEAT or best_instance(key, ready) != self.instance:
                continue
            self._proposed[key] = now
            found.append({"i": self.instance, "tell": key, "up": up})
        return found

    def forget(self, instance: str, now: float) -> None:
        """Take an instance that is gone out of all that it had."""
        for key in [key for key, held in self.holders.items() if instance in held]:
            self._hold(key, instance, False, now)

    @property
    def unsettled(self) -> int:
        """Of how many keys something else is told than is the case."""
        return len(self._unsettled)

    def instances(self) -> set[str]:
        """Return who has anything."""
        return set().union(*self.holders.values())

    def restore(self, told: Iterable[str], now: float) -> None:
        """Take over what was told, as another one knows it."""
        before, self.told = self.told, set(told)
        for key in before | self.told | set(self.holders):
            self._settle(key, now)

    # -- inside

    def _tell(self, key: str, up: bool, author: str, now: float) -> Transition | None:
        if up == (key in self.told):
            # Another one was first.
            return None
        (self.told.add if up else self.told.discard)(key)
        self._settle(key, now)
        return Transition(key, up, author)

    def _hold(self, key: str, instance: str, up: bool, now: float) -> None:
        held = self.holders.setdefault(key, set())
        (held.add if up else held.discard)(instance)
        if not held:
            del self.holders[key]
        self._settle(key, now)

    def _settle(self, key: str, now: float) -> None:
        if (key in self.holders) == (key in self.told):
            self._unsettled.pop(key, None)
            self._proposed.pop(key, None)
        else:
            self._unsettled.setdefault(key, now)
