"""Handlers: what an application gives to take WebSocket connections, and whether it can be one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .websocket import WebSocket

__all__ = ["Handler", "check_arguments", "check_handler"]

# What each callback is called with.
CALLBACKS = {
    "on_open": ("ws",),
    "on_message": ("ws", "message"),
    "on_close": ("ws", "code", "reason"),
    "on_drain": ("ws",),
}


class Handler:
    """Callbacks for all the connections of a server: one instance serves them, what belongs to one is in `ws.state`.

    Each is called in the event loop and must not block it. What one raises is logged, and closes its connection with
    1011.
    """

    def on_open(self, ws: WebSocket) -> None:
        """Take a new connection, its opening handshake done."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Take a message: str for text, bytes for binary."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """Handle the end: the close code and reason that the peer sent, or 1006 if it sent none."""

    def on_drain(self, ws: WebSocket) -> None:
        """Handle room in the write buffer: it fell under its low-water mark, after it was over its high-water mark."""


def check_handler(handler: Any, *, callbacks: bool = False) -> None:
    """Raise TypeError for what cannot be a handler; `callbacks` where only a Handler can."""
    if isinstance(handler, type) and issubclass(handler, Handler):
        raise TypeError(f"handler is the class {handler.__name__}, allowed is an instance of it: {handler.__name__}()")
    if isinstance(handler, Handler):
        for name, arguments in CALLBACKS.items():
            callback, what = getattr(handler, name), f"{type(handler).__name__}.{name}"
            if getattr(callback, "__func__", None) is getattr(Handler, name):
                continue
            if inspect.iscoroutinefunction(callback):
                raise TypeError(f"{what} is a coroutine function, allowed are plain functions")
            check_arguments(callback, what, *arguments)
    elif callbacks or not callable(handler):
        allowed = "a rawws.Handler" if callbacks else "a coroutine function and a rawws.Handler"
        raise TypeError(f"handler is {type(handler).__name__}, allowed is {allowed}")
    else:
        check_arguments(handler, "handler", "ws")


def check_arguments(function: Callable[..., Any], what: str, *arguments: str) -> None:
    """Raise TypeError for a function that cannot be called with these arguments; `what` is how it is named."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one written in C need not say what it takes
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        names = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
        taken = inspect.Signature(names)
        raise TypeError(f"{what} takes {taken}, it is called with ({', '.join(arguments)})") from None
