"""Grants: a token, or what an application answers, to who a client is and what it may do (docs/run/own-face.md).

Laws:
1. What nothing allows is refused.
2. What is wrong with a token is for the log: its client hears that it is not valid.
"""

from __future__ import annotations

import fnmatch
import json
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import rawws
from rawws.integrations.jwt import JwtIdentity

from .jwks import KeySet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .config import AppConfig, JwtConfig
    from .outgoing import Outgoing

__all__ = ["Capability", "ClientGrant", "TokenVerifier", "grant_of_answer"]

logger = logging.getLogger("rawws.gateway")

# RFC 6750 section 3.
INVALID: Final = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
RIGHTS: Final = ("subscribe", "publish")
# A token has 16 KiB at most, and an answer 128: each request of a client goes through the list.
MOST_CAPS: Final = 100
# What an application has the gateway keep of a connection, in bytes of JSON.
MAX_STATE: Final = 2048


class Capability(NamedTuple):
    """What may be done with channels whose names match: `*` stands for any characters."""

    match: str
    allow: frozenset[str]

    def permits(self, action: str, channel: str) -> bool:
        """Tell whether it allows something."""
        return action in self.allow and fnmatch.fnmatchcase(channel, self.match)


class ClientGrant(NamedTuple):
    """Who a client is, and what it may do."""

    identity: rawws.Identity
    # None where nothing was said of that: then it is for a call to say.
    caps: tuple[Capability, ...] | None = None
    # What the application wants to be told again.
    state: Any = None

    @property
    def user(self) -> str:
        """The name of the user."""
        return self.identity.user

    def permits(self, action: str, channel: str) -> bool:
        """Tell whether one of the capabilities allows something."""
        return any(each.permits(action, channel) for each in self.caps or ())


@final
class TokenVerifier:
    """Tokens of an app, verified by what its configuration says; `outgoing` gives what fetches keys.

    Raises ValueError for keys and algorithms that cannot be, ImportError without PyJWT.
    """

    __slots__ = ("_tokens", "config", "keys")

    def __init__(self, config: JwtConfig, outgoing: Callable[[], Outgoing]) -> None:
        self.config = config
        self.keys: KeySet | None = None
        self._tokens: JwtIdentity | None = None
        if config.jwks:
            self.keys = KeySet(config.jwks, config.algorithms, config.jwks_age, self._by, outgoing)
        else:
            self._tokens = self._by(config.key or config.keys, config.algorithms)

    def _by(self, key: Any, algorithms: Iterable[str]) -> JwtIdentity:
        """Return what verifies tokens by a key, or by several."""
        config = self.config
        return JwtIdentity(
            key, algorithms=algorithms, audience=config.audience, issuer=config.issuer, leeway=config.leeway
        )

    def grant_of(self, app: AppConfig, token: str) -> ClientGrant | Awaitable[ClientGrant]:
        """Return what a token grants at an app, or an awaitable of it. Raises HttpError: 401, 503 without keys."""
        found = self._tokens if self.keys is None else self.keys.verifier_of(token)
        if isinstance(found, JwtIdentity):
            return self._granted(app, token, found)
        assert found is not None  # noqa: S101 - there is one or the other
        return self._granted_later(app, token, found)

    async def _granted_later(self, app: AppConfig, token: str, found: Awaitable[JwtIdentity]) -> ClientGrant:
        return self._granted(app, token, await found)

    def _granted(self, app: AppConfig, token: str, tokens: JwtIdentity) -> ClientGrant:
        claims = tokens.claims(token)
        try:
            if claims.get("app", app.id) != app.id:
                raise ValueError("it is for another app")
            identity = rawws.Identity(claims["sub"], claims.get("info"), claims["exp"] + self.config.leeway)
            return ClientGrant(identity, caps_of(claims))
        except (ValueError, TypeError) as error:
            logger.info("a token is refused: %s", error)
            raise rawws.HttpError(401, "the token is not valid", INVALID) from None


def grant_of_answer(answer: object) -> ClientGrant:
    """Return what an application grants. Raises ValueError or TypeError for what says that not."""
    if not isinstance(answer, dict):
        raise TypeError(f"the answer is {type(answer).__name__}, allowed is an object")
    state = answer.get("state")
    if len(json.dumps(state).encode()) > MAX_STATE:
        raise ValueError(f"state has over {MAX_STATE} bytes")
    identity = rawws.Identity(answer.get("user", ""), answer.get("info"), answer.get("expires"))
    return ClientGrant(identity, caps_of(answer), state)


def caps_of(fields: dict[str, Any]) -> tuple[Capability, ...] | None:
    """Return the capabilities that stand somewhere, None where there are none. Raises ValueError."""
    caps = fields.get("caps")
    if caps is None:
        return None
    if not isinstance(caps, list) or len(caps) > MOST_CAPS:
        raise ValueError(f"caps is no list of up to {MOST_CAPS} objects")
    return tuple(capability_of(each) for each in caps)


def capability_of(fields: object) -> Capability:
    """Return a capability. Raises ValueError."""
    match = fields.get("match") if isinstance(fields, dict) else None
    allow = fields.get("allow") if isinstance(fields, dict) else None
    if not isinstance(match, str) or not isinstance(allow, list) or not all(each in RIGHTS for each in allow):
        shape = '{"match": "room-*", "allow": ["subscribe", "publish"]}'
        raise ValueError(f"a cap is {str(fields)[:64]}, allowed is such as {shape}")
    return Capability(match, frozenset(allow))
