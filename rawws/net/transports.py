"""Transports: the loop's own, which may be gone when something is asked of them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["abort_transport", "close_transport", "has_unread", "shut_down_socket", "write_first"]


def close_transport(transport: asyncio.Transport) -> None:
    """Close a transport of the loop behind what it was given to write; do nothing where it closes, or is gone."""
    # A TLS transport forgets what it belongs to when it is closed twice, or once when it is gone: from then on its
    # methods raise AttributeError, and it cannot be aborted.
    if not transport.is_closing():
        transport.close()


def abort_transport(transport: asyncio.WriteTransport) -> None:
    """End a transport of the loop at once; do nothing where it is gone."""
    # asyncio closes twice by itself, where a TLS handshake fails: then `abort`, too, raises in Python 3.11.2, also that
    # of a TLS transport within.
    with contextlib.suppress(AttributeError):
        transport.abort()


def shut_down_socket(transport: asyncio.Transport) -> None:
    """End a TCP connection whose transport is about to close the descriptor, whoever else has that."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return
    # uvloop's own object has no `shutdown`.
    same = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
    try:
        same.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The peer was faster.
        pass
    finally:
        same.detach()


def has_unread(fd: int) -> bool:
    """Tell whether the peer sent something that was not read; an end is nothing."""
    same = socket.socket(fileno=fd)
    try:
        return bool(same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
    finally:
        same.detach()


def write_first(transport: asyncio.Transport, data: bytes) -> None:
    """Write the first bytes of a client; where the server has ended the connection, what it sent can still be read."""
    sock = transport.get_extra_info("socket")
    sent = 0
    if os.name == "posix" and sock is not None and transport.get_extra_info("sslcontext") is None:
        try:
            sent = os.write(sock.fileno(), data)
        except ConnectionError:
            # The transport would drop what it has not read, if it found out by writing.
            return
        except OSError:
            sent = 0
    if sent < len(data):
        transport.write(data[sent:])
