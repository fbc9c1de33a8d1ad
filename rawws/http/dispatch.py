"""Dispatch: an exchange to the endpoint that answers it, and what that returns to a response."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

from rawws.errors import HttpError
from rawws.net.cancellation import is_cancelled

from .exchange import is_responder
from .responses import as_response

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .exchange import Exchange

__all__ = ["call_endpoint"]


def call_endpoint(exchange: Exchange) -> None:
    """Have the endpoint answer, now or later. Raises what a plain endpoint raises."""
    assert exchange.endpoint is not None  # noqa: S101 - where an application takes the body, nothing calls this
    value = exchange.endpoint(exchange.request)
    if inspect.isawaitable(value):
        exchange.endpoint_task = exchange.context.start(_complete_later(exchange, value))
        if exchange.held:
            # Whatever becomes of the client, the body is kept until then.
            exchange.endpoint_task.add_done_callback(lambda _: exchange.free())
    else:
        _complete(exchange, value)


async def _complete_later(exchange: Exchange, value: Awaitable[object]) -> None:
    """Wait for an endpoint. Only where its route says so, its client's end cancels it: it may be in a transaction."""
    try:
        _complete(exchange, await value)
    except asyncio.CancelledError as error:
        if is_cancelled():
            exchange.socket.abort()
            raise
        # RFC 9110 15.6.1: 500 "indicates that the server encountered an unexpected condition that prevented it from
        # fulfilling the request." Nobody ends this task: what the endpoint waited for was cancelled, and not the
        # client's connection.
        exchange.fail(error)
    except HttpError as error:
        exchange.refuse(error)
    except Exception as error:  # noqa: BLE001 - whatever an endpoint raises, it ends its own connection only
        exchange.fail(error)


def _complete(exchange: Exchange, value: object) -> None:
    """Send what an endpoint answered."""
    exchange.endpoint_task = None
    if exchange.over:
        if is_responder(value):
            value.lose()
    elif not is_responder(value):
        exchange.respond(as_response(value))
    else:
        request = exchange.request
        try:
            value.begin(exchange, request)
        except HttpError:
            value.lose()
            raise
        # The response may last: what is not needed any more goes.
        exchange.forget()
        observer = exchange.connection.observer
        if exchange.context.closing and not exchange.over and observer is not None:
            observer.shut_down()
