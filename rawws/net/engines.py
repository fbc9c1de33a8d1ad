"""Engines: who reads and writes sockets: the loop's transports, or an epoll of our own."""

from __future__ import annotations

import asyncio
import select
from typing import Literal, TypeAlias

from .reactor import COMPILED

__all__ = ["ENGINES", "SocketEngine", "check_engine", "chosen_engine", "default_engine"]

SocketEngine: TypeAlias = Literal["asyncio", "epoll"]

ENGINES: tuple[SocketEngine, ...] = ("asyncio", "epoll")
# Whether None stands for our own engine in TLS, too, wherever it does for plain sockets.
WITH_TLS = True


def check_engine(engine: object) -> None:
    """Raise ValueError for what is no engine, or none that this system has."""
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}, allowed are 'asyncio', 'epoll' and None")
    if engine == "epoll" and not hasattr(select, "epoll"):
        raise ValueError("engine is 'epoll', allowed on Linux only: this system has no epoll")


def default_engine(loop: asyncio.AbstractEventLoop, *, tls: bool) -> SocketEngine:
    """Return what None stands for: the engine that costs less in this loop."""
    if not hasattr(select, "epoll") or (tls and not WITH_TLS):
        return "asyncio"
    # Interpreted, ours takes a tenth less for a message of 64 B than asyncio's transports, which are Python as well,
    # but 7 % more than uvloop's, which are C.
    return "epoll" if COMPILED or isinstance(loop, asyncio.SelectorEventLoop) else "asyncio"


def chosen_engine(engine: SocketEngine | None, loop: asyncio.AbstractEventLoop, *, tls: bool) -> SocketEngine:
    """Return the one that an option stands for in this loop."""
    return default_engine(loop, tls=tls) if engine is None else engine
