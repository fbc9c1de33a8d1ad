"""Calls of the own face: what a client of rawws.v1 wants to a question to its application, its answer to what that may.

Each is a POST of JSON, signed as Standard Webhooks are. 401 and 403 refuse; another status than 2xx, or no answer, is
no answer: the client is told to ask again later.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import rawws
from rawws.topics import TopicError

from .grants import grant_of_answer
from .outgoing import CallFailed
from .webhooks import standard_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import AppConfig
    from .grants import ClientGrant
    from .outgoing import BackendAnswer, Outgoing

__all__ = ["ApplicationCalls"]

logger = logging.getLogger("rawws.gateway")

REFUSALS: Final = (401, 403)
# Of what a client is told, in characters.
MAX_REASON: Final = 100
# What the application says may be published in the place of what was said: it is this, or its `base64`.
DATA, OCTETS = "data", "base64"


class ApplicationCalls:
    """Asks the applications; `outgoing` gives what brings requests to them."""

    def __init__(self, outgoing: Callable[[], Outgoing]) -> None:
        self._outgoing = outgoing

    async def connect(self, app: AppConfig, url: str, client: dict[str, Any]) -> ClientGrant:
        """Return who a client is, and what it may do. Raises HttpError: 401, 403, or 503 where that is not known."""
        answer = await self._ask(app, url, {"call": "connect", **client})
        if answer is not None and answer.status in REFUSALS:
            raise rawws.HttpError(answer.status, reason_of(answer) or "the application lets nobody in so")
        if answer is not None and 200 <= answer.status < 300:
            try:
                return grant_of_answer(object_in(answer))
            except (ValueError, TypeError) as error:
                logger.warning("connect of the app %s was answered with what lets nobody in: %s", app.id, error)
        raise rawws.HttpError(503, "the application cannot be asked at this time")

    async def subscribe(self, app: AppConfig, url: str, about: dict[str, Any]) -> bool:
        """Tell whether a client may subscribe. Raises TopicError: "refused", or "unavailable"."""
        await self._judged(app, url, {"call": "subscribe", **about})
        return True

    async def publish(self, app: AppConfig, url: str, about: dict[str, Any], data: Any) -> Any:
        """Return what is published of what a client says. Raises as `subscribe` does."""
        said = {OCTETS: base64.b64encode(data).decode()} if isinstance(data, bytes) else {DATA: data}
        answer = await self._judged(app, url, {"call": "publish", **about, **said})
        if not answer.body:
            return data
        try:
            told = object_in(answer)
            if isinstance(told, dict) and OCTETS in told:
                return base64.b64decode(told[OCTETS], validate=True)
            return told[DATA] if isinstance(told, dict) and DATA in told else data
        except (ValueError, TypeError) as error:
            logger.warning("publish of the app %s was answered with what cannot be published: %s", app.id, error)
            raise away() from None

    async def _judged(self, app: AppConfig, url: str, about: dict[str, Any]) -> BackendAnswer:
        answer = await self._ask(app, url, about)
        if answer is not None and answer.status in REFUSALS:
            raise rawws.Refused(reason_of(answer))
        if answer is None or not 200 <= answer.status < 300:
            raise away()
        return answer

    async def _ask(self, app: AppConfig, url: str, fields: dict[str, Any]) -> BackendAnswer | None:
        """Return what an application answers, None for nothing."""
        ident = f"call_{secrets.token_hex(12)}"
        body = json.dumps({"app": app.id, **fields}, separators=(",", ":")).encode()
        signed = standard_fields([each.secret for each in app.keys], ident, body, time.time())
        headers = [("Content-Type", "application/json"), ("X-Request-Id", ident), *signed]
        assert app.calls is not None  # noqa: S101 - for mypy
        try:
            answer = await self._outgoing().call(url, body, headers, timeout=app.calls.timeout)
        except CallFailed as error:
            logger.warning("%s of the app %s failed: %s", fields["call"], app.id, error)
            return None
        if answer.status not in REFUSALS and not 200 <= answer.status < 300:
            logger.warning("%s of the app %s was answered with %d", fields["call"], app.id, answer.status)
        return answer


def away() -> TopicError:
    """Return the error of a question without an answer."""
    return TopicError("unavailable", "the application cannot be asked at this time")


def object_in(answer: BackendAnswer) -> Any:
    """Return the JSON of an answer. Raises ValueError."""
    try:
        return json.loads(answer.body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def reason_of(answer: BackendAnswer) -> str:
    """Return what a client is told of a refusal: the `reason` of the JSON that the application answers."""
    try:
        said = object_in(answer)
    except ValueError:
        return ""
    reason = said.get("reason") if isinstance(said, dict) else None
    return reason[:MAX_REASON] if isinstance(reason, str) and reason.isprintable() else ""
