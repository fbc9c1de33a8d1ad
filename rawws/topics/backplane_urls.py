"""Backplane URLs: the URL of an engine to the backplane that joins hubs by it."""

from __future__ import annotations

import pkgutil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .backplane import Backplane

__all__ = ["SCHEMES", "backplane_class", "backplane_of"]

# Each is loaded when it is asked for: its package is installed by those who want it.
SCHEMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "redis": "rawws.backplanes.redis:RedisBackplane",
        "rediss": "rawws.backplanes.redis:RedisBackplane",
        "unix": "rawws.backplanes.redis:RedisBackplane",
        "redis+sentinel": "rawws.backplanes.redis:RedisBackplane",
        "rediss+sentinel": "rawws.backplanes.redis:RedisBackplane",
        "redis+cluster": "rawws.backplanes.redis_cluster:RedisClusterBackplane",
        "rediss+cluster": "rawws.backplanes.redis_cluster:RedisClusterBackplane",
        "postgresql": "rawws.backplanes.postgres:PostgresBackplane",
        "postgres": "rawws.backplanes.postgres:PostgresBackplane",
        "nats": "rawws.backplanes.nats:NatsBackplane",
        "tls": "rawws.backplanes.nats:NatsBackplane",
        "kafka": "rawws.backplanes.kafka:KafkaBackplane",
        "kafkas": "rawws.backplanes.kafka:KafkaBackplane",
    }
)


def backplane_class(url: str) -> Callable[..., Backplane]:
    """Return the class for a URL, by its scheme: `backplane_class(url)(url, lease=5)`. Raises ValueError for others."""
    scheme, colon, _ = url.partition("://")
    name = SCHEMES.get(scheme.lower()) if colon else None
    if name is None:
        # What stands behind the scheme may have a password.
        shown = f"begins with {scheme[:32]!r}" if colon else "is no URL"
        raise ValueError(f"the URL of the backplane {shown}, allowed are {', '.join(f'{each}://' for each in SCHEMES)}")
    found: Callable[..., Backplane] = pkgutil.resolve_name(name)
    return found


def backplane_of(url: str, **options: Any) -> Backplane:
    """Return a backplane for the engine at a URL, with the options of its class.

    Raises ValueError for a URL that names none, ImportError with what to install where its package is missing.
    """
    return backplane_class(url)(url, **options)
