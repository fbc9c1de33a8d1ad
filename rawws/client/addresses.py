"""Addresses: a host and a port to a connected socket, over the first address that answers (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["connect_tcp", "connect_unix"]

# RFC 8305 section 5: "One recommended value for a default delay is 250 milliseconds."
ATTEMPT_DELAY = 0.25
# A socket address of IPv4 or IPv6, and an entry of what `getaddrinfo` finds.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]"
Entry: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Address]"


async def connect_tcp(host: str, port: int, local_addr: tuple[str, int] | None = None) -> socket.socket:
    """Connect to the first address of a host that answers, each given a head start of 250 ms (RFC 8305)."""
    loop = asyncio.get_running_loop()
    try:
        waiting = interleave(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except socket.gaierror as unknown:
        # It may be that of a proxy, which nobody named here.
        raise socket.gaierror(unknown.errno, f"the host {host} is not found: {unknown.strerror}") from None
    sources = {} if local_addr is None else await _sources(local_addr)
    errors: list[OSError] = []
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect_socket(waiting.pop(0), sources)))
            # RFC 8305 5: a failed attempt does not wait for the end of its delay, the next one begins at once.
            delay = ATTEMPT_DELAY if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            while done:
                task = done.pop()
                error = task.exception()
                if error is None:
                    running |= done
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
    finally:
        # RFC 8305 5: "once one of the connection attempts succeeds [...], all other connections attempts that have not
        # yet succeeded SHOULD be canceled."
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)
    raise _one_error(host, errors)


async def connect_unix(path: str) -> socket.socket:
    """Connect to a unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def interleave(found: Sequence[Entry]) -> list[Entry]:
    """Order what `getaddrinfo` found: the two families in turn, the first one first (RFC 8305 section 4)."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    ordered = [entry for pair in zip(first, other, strict=False) for entry in pair]
    return ordered + first[len(other) :] + other[len(first) :]


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that succeeded when it was not needed any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _one_error(host: str, errors: list[OSError]) -> OSError:
    """Make one error of those of all addresses; of the same kind where they agree, as ConnectionRefusedError."""
    if len(errors) == 1:
        return errors[0]
    numbers = {error.errno for error in errors}
    text = f"no address of {host} answers: {'; '.join(map(str, errors)) or 'it has none'}"
    return OSError(numbers.pop(), text) if len(numbers) == 1 and None not in numbers else OSError(text)


async def _sources(local_addr: tuple[str, int]) -> dict[int, Address]:
    """Return the address to connect from, by its family."""
    found = await asyncio.get_running_loop().getaddrinfo(*local_addr, type=socket.SOCK_STREAM)
    return {entry[0]: entry[4] for entry in reversed(found)}


async def _connect_socket(entry: Entry, sources: dict[int, Address]) -> socket.socket:
    family, kind, proto, _, address = entry
    if sources and family not in sources:
        raise OSError(f"{address[0]} cannot be reached from local_addr, an address of another family")
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if sources:
            sock.bind(sources[family])
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except ConnectionRefusedError as error:
        sock.close()
        host = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
        raise ConnectionRefusedError(error.errno, f"nothing listens at {host}:{address[1]!r}") from None
    except BaseException:
        sock.close()
        raise
    return sock
