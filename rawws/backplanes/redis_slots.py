"""Redis slots: topics to the slots of a cluster, and what its nodes say to which of them has which.

The hash slot of a key is "CRC16(key) mod 16384", of that part of the key which stands in braces (Redis Cluster
Specification, "Key distribution model"); that CRC16 is XMODEM's, as binascii.crc_hqx has it.
"""

from __future__ import annotations

from binascii import crc_hqx
from itertools import count
from typing import Any, NamedTuple, Protocol, final

from .redis_records import quoted_topic

__all__ = ["SLOTS", "MasterSlots", "Shard", "SlotTopics", "key_slot", "masters_of", "slot_of"]

SLOTS = 16384

Address = tuple[str, int]


class Shard(Protocol):
    """What the node of a cluster is of it."""

    @property
    def tag(self) -> str:
        """The hash tag of what is about the node itself; it has a slot of the node."""

    def on_redirect(self, topic: str, error: str) -> None:
        """Hear that the node does not serve a topic. What is asked of it then, fails with BackplaneAway."""

    def keeps_all(self) -> bool:
        """Tell whether each node that a topic may have come from has on its disk what it answered."""


def slot_of(topic: str) -> int:
    """Return the slot of a topic: that of all its keys, and of its channel."""
    return crc_hqx(quoted_topic(topic).encode(), 0) % SLOTS


def key_slot(key: str) -> int:
    """Return the slot of a key or a channel that has a hash tag."""
    return crc_hqx(key.partition("{")[2].partition("}")[0].encode(), 0) % SLOTS


@final
class SlotTopics:
    """The topics of some slots."""

    __slots__ = ("slots",)

    def __init__(self, slots: frozenset[int]) -> None:
        self.slots = slots

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and slot_of(topic) in self.slots


@final
class MasterSlots(NamedTuple):
    """A master of a cluster: where it is, which slots it has, and the hash tag of what is about the node itself.

    All servers find the same tag. It stays while its slot stays on the node, and where another node takes over: most
    slots may come and go meanwhile.
    """

    address: Address
    slots: frozenset[int]
    tag: str


def masters_of(found: Any, asked: Address) -> tuple[list[MasterSlots], set[Address]]:
    """Return the masters that CLUSTER SLOTS tells, and where all nodes are. Raises ValueError for what is no answer."""
    slots: dict[Address, set[int]] = {}
    nodes = set()
    try:
        for first, last, master, *replicas in found:
            addresses = [(node[0].decode() if node[0] else asked[0], int(node[1])) for node in (master, *replicas)]
            slots.setdefault(addresses[0], set()).update(range(first, last + 1))
            nodes.update(addresses)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"what CLUSTER SLOTS says cannot be read: {error!r}") from None
    return [MasterSlots(address, frozenset(own), tag_of(own)) for address, own in slots.items()], nodes


def tag_of(slots: set[int]) -> str:
    """Return the first number whose slot is among these: of all it is any, not the first, which is moved first."""
    return next(str(number) for number in count() if crc_hqx(b"%d" % number, 0) % SLOTS in slots)
