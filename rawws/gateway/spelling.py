"""Spelling: the id of a connection to the texts by which clients and servers know it, and back; times and URLs.

One id has two spellings, `DSU8k1dhT6o4gks=` where AWS's is spoken, and `853308.2465731245823` where Pusher's is. Each
tells which instance has the connection.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["ConnectionId", "host_and_port", "iso_time", "new_instance", "shown_url"]

# Octets of the number of an instance, and of that of a connection.
INSTANCE_SIZE: Final = 3
NUMBER_SIZE: Final = 8
# As many as a number in JavaScript holds exactly, whose libraries may take a socket id for two of them.
NUMBER_BITS: Final = 53
SOCKET_ID: Final = re.compile(r"(0|[1-9][0-9]{0,7})\.(0|[1-9][0-9]{0,15})", re.ASCII)
# 11 octets are 15 characters, and one to fill up.
AWS_ID: Final = re.compile(r"[A-Za-z0-9_-]{15}=", re.ASCII)


def iso_time(seconds: float) -> str:
    """Return a time since 1970 as both SDKs and webhooks have it: ISO 8601, in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def host_and_port(address: str) -> tuple[str, int]:
    """Return both halves of HOST:PORT; an address of IPv6 without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: a password, and a query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def new_instance() -> int:
    """Return a number for an instance, at random."""
    return secrets.randbits(8 * INSTANCE_SIZE)


class ConnectionId(NamedTuple):
    """The id of a connection: the number of the instance that has it, and one of its own, which cannot be guessed."""

    instance: int
    number: int

    @classmethod
    def new(cls, instance: int) -> ConnectionId:
        """Return a new one at an instance."""
        return cls(instance, secrets.randbits(NUMBER_BITS))

    @classmethod
    def parse(cls, text: str) -> ConnectionId:
        """Return what either spelling stands for. Raises ValueError for what is none."""
        found = SOCKET_ID.fullmatch(text)
        if found is not None:
            instance, number = int(found[1]), int(found[2])
        elif AWS_ID.fullmatch(text):
            octets = urlsafe_b64decode(text)
            instance, number = int.from_bytes(octets[:INSTANCE_SIZE]), int.from_bytes(octets[INSTANCE_SIZE:])
        else:
            instance = number = -1
        if not 0 <= instance < 1 << 8 * INSTANCE_SIZE or not 0 <= number < 1 << NUMBER_BITS:
            raise ValueError(f"the connection id is {text[:64]!r}, allowed are those that were given")
        return cls(instance, number)

    @property
    def socket_id(self) -> str:
        """The spelling of Pusher: two numbers and a dot."""
        return f"{self.instance}.{self.number}"

    @property
    def aws(self) -> str:
        """The spelling of AWS: base64 for URLs, with `=` at its end."""
        return urlsafe_b64encode(self.instance.to_bytes(INSTANCE_SIZE) + self.number.to_bytes(NUMBER_SIZE)).decode()
