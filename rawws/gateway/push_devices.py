"""Push devices: what users registered, kept where all instances find it: in the Redis that joins them.

Laws:
1. A device is one of one user: who registers it anew takes it along.
2. Of a user a bounded number is kept: the one that registered first is forgotten for one more.
3. A device that a service says is gone is forgotten as it was pushed to: not one that registered anew meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from rawws.errors import RawwsError
from rawws.integrations.push import PushDevice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["DeviceStore", "DevicesAway", "MemoryDevices", "RedisDevices", "device_store"]

# Of a user; and in memory of all apps together, some 500 bytes each.
MOST_OF_USER: Final = 20
MOST_IN_MEMORY: Final = 100_000
# For an answer of the Redis, in seconds.
TIMEOUT: Final = 5.0


class DevicesAway(RawwsError):
    """What keeps the devices cannot be asked at this time, or has no room for one more."""


class DeviceStore(Protocol):
    """Keeps devices by their apps and ids. All raise DevicesAway."""

    async def put(self, app: str, device: PushDevice) -> None:
        """Keep a device, in the place of one with its id."""

    async def get(self, app: str, ident: str) -> PushDevice | None:
        """Return a device, None where there is none."""

    async def remove(self, app: str, ident: str, token: str | None = None) -> bool:
        """Forget a device, with `token` only if it has that still; tell whether it was there."""

    async def of_user(self, app: str, user: str) -> list[PushDevice]:
        """Return the devices of a user."""

    async def close(self) -> None:
        """End."""


@final
class MemoryDevices:
    """The devices of one instance, as long as that runs."""

    def __init__(self) -> None:
        self._devices: dict[tuple[str, str], PushDevice] = {}
        self._of_users: dict[tuple[str, str], dict[str, None]] = {}

    async def put(self, app: str, device: PushDevice) -> None:
        """Keep a device, in the place of one with its id."""
        await self.remove(app, device.id)
        if len(self._devices) >= MOST_IN_MEMORY:
            raise DevicesAway(f"{MOST_IN_MEMORY} devices are kept in memory, the limit")
        self._devices[app, device.id] = device
        idents = self._of_users.setdefault((app, device.user), {})
        idents[device.id] = None
        for first in list(idents)[:-MOST_OF_USER]:
            await self.remove(app, first)

    async def get(self, app: str, ident: str) -> PushDevice | None:
        """Return a device, None where there is none."""
        return self._devices.get((app, ident))

    async def remove(self, app: str, ident: str, token: str | None = None) -> bool:
        """Forget a device, with `token` only if it has that still; tell whether it was there."""
        known = self._devices.get((app, ident))
        if known is None or token not in {None, known.token}:
            return False
        del self._devices[app, ident]
        idents = self._of_users[app, known.user]
        del idents[ident]
        if not idents:
            del self._of_users[app, known.user]
        return True

    async def of_user(self, app: str, user: str) -> list[PushDevice]:
        """Return the devices of a user."""
        return [self._devices[app, ident] for ident in self._of_users.get((app, user), ())]

    async def close(self) -> None:
        """Do nothing."""


@final
class RedisDevices:
    """The devices of all instances: a hash of each app, and of each user the ids, by when they registered."""

    def __init__(self, url: str, prefix: str) -> None:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - the same
        from redis.backoff import NoBackoff  # noqa: PLC0415 - the same

        self._prefix = prefix
        # Once more where a connection that was kept is found to be over.
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
        )

    def _keys(self, app: str, user: str = "") -> tuple[str, str]:
        """Return the keys of an app, and of a user of it. An app has no `:` in its id."""
        return f"{self._prefix}:push:{app}", f"{self._prefix}:push:{app}:{user}"

    async def put(self, app: str, device: PushDevice) -> None:
        """Keep a device, in the place of one with its id."""
        of_app, of_user = self._keys(app, device.user)
        async with self._asking():
            known = device_of_json(await self._redis.hget(of_app, device.id))
            async with self._redis.pipeline(transaction=True) as pipeline:
                if known is not None:
                    pipeline.zrem(self._keys(app, known.user)[1], device.id)
                pipeline.hset(of_app, device.id, json.dumps(device.fields()))
                pipeline.zadd(of_user, {device.id: device.since})
                pipeline.zrange(of_user, 0, -MOST_OF_USER - 1)
                *_, firsts = await pipeline.execute()
            for first in firsts:
                await self._redis.zrem(of_user, first)
                await self._redis.hdel(of_app, first)

    async def get(self, app: str, ident: str) -> PushDevice | None:
        """Return a device, None where there is none."""
        async with self._asking():
            return device_of_json(await self._redis.hget(self._keys(app)[0], ident))

    async def remove(self, app: str, ident: str, token: str | None = None) -> bool:
        """Forget a device, with `token` only if it has that still; tell whether it was there."""
        async with self._asking():
            of_app = self._keys(app)[0]
            known = device_of_json(await self._redis.hget(of_app, ident))
            if known is None or token not in {None, known.token}:
                return False
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hdel(of_app, ident)
                pipeline.zrem(self._keys(app, known.user)[1], ident)
                await pipeline.execute()
            return True

    async def of_user(self, app: str, user: str) -> list[PushDevice]:
        """Return the devices of a user."""
        of_app, of_user = self._keys(app, user)
        async with self._asking():
            idents = await self._redis.zrange(of_user, 0, -1)
            found = map(device_of_json, await self._redis.hmget(of_app, idents) if idents else [])
            return [device for device in found if device is not None and device.user == user]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Have what the Redis raises be DevicesAway. Its text may have an address, and no secret."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(TIMEOUT):
                yield
        except (RedisError, OSError) as error:
            raise DevicesAway(f"the devices cannot be asked for: {error}") from None


def device_of_json(text: str | None) -> PushDevice | None:
    """Return the device that is kept as JSON; None for none, and for what another program wrote."""
    if text is None:
        return None
    try:
        return PushDevice.of(json.loads(text))
    except (ValueError, TypeError, AttributeError):
        return None


def device_store(backplane: str, prefix: str) -> DeviceStore:
    """Return what keeps the devices of a gateway."""
    return MemoryDevices() if backplane == "none" else RedisDevices(backplane, prefix)
