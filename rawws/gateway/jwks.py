"""Key sets: a URL to the public keys that tokens are verified by, kept, and fetched again as they change (RFC 7517).

Laws:
1. A key is good for those algorithms of the configuration that it is made for; what is secret is no key of a set.
2. Whatever tokens come, the URL is asked by one request at a time, and by few in a while.
3. Where the URL fails, the keys of before are good for a while, and nothing of an answer stands in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import rawws
from rawws import clock
from rawws.integrations.jwt import JwtIdentity
from rawws.net.cancellation import cancel_all

from .outgoing import CallFailed
from .spelling import shown_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .outgoing import Outgoing

__all__ = ["KeySet", "verifiers_in"]

logger = logging.getLogger("rawws.gateway")

# In seconds: for an answer, from one request to the next, and for which keys are good that cannot be fetched again.
TIMEOUT: Final = 5.0
AGAIN: Final = 10.0
GRACE: Final = 3600.0
# A set has a handful: the keys of now, and those of before and after.
MOST_KEYS: Final = 100
# As tokens are read elsewhere, in characters; and what a key is called.
MAX_TOKEN: Final = 16384
MAX_KID: Final = 255
# RFC 7518 section 3.1 and RFC 8037: of keys that everybody may read.
PUBLIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA"),
)
# NIST SP 800-131A: "RSA: len(n) < 2048: Disallowed" for new signatures.
LEAST_BITS: Final = 2048
# A larger one takes more time for each token than a token is worth.
MOST_BITS: Final = 8192
# RFC 7518 sections 6.2.2, 6.3.2 and 6.4: what stands in no public key.
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
MISSING: Final = (("WWW-Authenticate", "Bearer"),)
INVALID: Final = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
LATER: Final = (("Retry-After", "10"),)

# Makes of a key, and the algorithms that it is good for, what verifies tokens. Raises ValueError and TypeError.
Maker: TypeAlias = "Callable[[Any, list[str]], JwtIdentity]"


@final
class KeySet:
    """What verifies the tokens of an app, by the keys at a URL; they are fetched again after `age` seconds.

    `close` it in the loop that used it. Raises ValueError for algorithms of secrets, and for those that there are not.
    """

    __slots__ = ("_age", "_algorithms", "_come_at", "_make", "_outgoing", "_task", "_tried_at", "_url", "_verifiers")

    def __init__(
        self, url: str, algorithms: tuple[str, ...], age: float, make: Maker, outgoing: Callable[[], Outgoing]
    ) -> None:
        if not algorithms or not set(algorithms) <= set(PUBLIC):
            raise ValueError(
                f"algorithms are {', '.join(algorithms) or 'none'}, allowed beside jwks are {', '.join(PUBLIC)}"
            )
        self._url = url
        self._algorithms = algorithms
        self._age = age
        self._make = make
        self._outgoing = outgoing
        self._verifiers: dict[str | None, JwtIdentity] = {}
        self._come_at = self._tried_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    def verifier_of(self, token: str) -> JwtIdentity | Awaitable[JwtIdentity]:
        """Return what verifies a token, or an awaitable of it where the keys must be fetched first.

        Raises HttpError: 401 for a token of no key that there is, 503 where the keys cannot be had.
        """
        kid = kid_of(token)
        age = clock.monotonic() - self._come_at
        found = self._find(kid)
        if found is None or age > self._age:
            # It may be a new one.
            self.refresh()
        if found is not None and age <= self._age + GRACE:
            return found
        if self._task is None:
            return self._found(kid)
        return self._wait(self._task, kid)

    def refresh(self) -> None:
        """Fetch the keys, if that is not under way, and was not tried just now."""
        if self._task is None and clock.monotonic() - self._tried_at >= AGAIN:
            self._tried_at = clock.monotonic()
            self._task = asyncio.get_running_loop().create_task(self._fetch())

    @property
    def is_fetching(self) -> bool:
        """Whether the URL is asked."""
        return self._task is not None

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            await cancel_all(self._task)

    async def _wait(self, task: asyncio.Task[None], kid: str | None) -> JwtIdentity:
        await asyncio.shield(task)
        return self._found(kid)

    def _find(self, kid: str | None) -> JwtIdentity | None:
        """Return what verifies by a key; a token may leave out which one where there is one alone."""
        if kid is None and len(self._verifiers) == 1:
            return next(iter(self._verifiers.values()))
        return self._verifiers.get(kid)

    def _found(self, kid: str | None) -> JwtIdentity:
        """Return what verifies by a key. Raises HttpError."""
        if clock.monotonic() - self._come_at > self._age + GRACE:
            raise rawws.HttpError(503, "the keys of tokens cannot be had at this time", LATER)
        found = self._find(kid)
        if found is None:
            logger.info("a token is refused: there is no key %r", kid)
            raise rawws.HttpError(401, "the token is not valid", INVALID)
        return found

    async def _fetch(self) -> None:
        """Take over the keys at the URL; where that fails, those of before stay."""
        shown = shown_url(self._url)
        try:
            answer = await self._outgoing().call(self._url, headers=ACCEPT, timeout=TIMEOUT, method="GET")
            if answer.status != 200:
                raise ValueError(f"the answer has the status {answer.status}, needed is 200")
            found, wrong = verifiers_in(answer.body, self._algorithms, self._make)
        except (CallFailed, ValueError) as error:
            logger.warning("the keys at %s cannot be had: %s", shown, error)
        else:
            self._verifiers, self._come_at = found, clock.monotonic()
            for each in wrong:
                logger.warning("a key at %s is refused: %s", shown, each)
        finally:
            self._task = None


ACCEPT: Final = (("Accept", "application/jwk-set+json, application/json"),)


def kid_of(token: str) -> str | None:
    """Return which key a token says that it is signed by, None where it does not. Raises HttpError(401)."""
    import jwt  # noqa: PLC0415 - an extra

    if not token:
        raise rawws.HttpError(401, "a token is needed", MISSING)
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError(f"it has {len(token)} characters, limit {MAX_TOKEN}")
        kid = jwt.get_unverified_header(token).get("kid")
        if kid is not None and len(kid) > MAX_KID:
            raise ValueError(f"its kid has {len(kid)} characters, limit {MAX_KID}")
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        logger.info("a token is refused: %s", error)
        raise rawws.HttpError(401, "the token is not valid", INVALID) from None
    return kid


def verifiers_in(
    body: bytes, algorithms: tuple[str, ...], make: Maker
) -> tuple[dict[str | None, JwtIdentity], list[str]]:
    """Return what verifies by each key of a set, and what is wrong with others of its keys.

    A key for something else than signatures, or for other algorithms, is passed over. Raises ValueError for what is no
    set, and for one without a key.
    """
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    keys = whole.get("keys") if isinstance(whole, dict) else None
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise ValueError(f"the answer is no object with keys, a list of up to {MOST_KEYS}")
    found: dict[str | None, JwtIdentity] = {}
    wrong: list[str] = []
    for number, each in enumerate(keys):
        try:
            verifier = verifier_in(each, algorithms, make)
            kid = each.get("kid") if verifier is not None else None
            if verifier is None:
                continue
            if kid in found:
                raise ValueError("another one has its kid")
            found[kid] = verifier
        except ValueError as error:
            wrong.append(f"keys[{number}]: {error}")
    if not found:
        reasons = "".join(f"; {each}" for each in wrong[:3])
        raise ValueError(f"there is no key for {', '.join(algorithms)}{reasons}")
    return found, wrong


def verifier_in(key: object, algorithms: tuple[str, ...], make: Maker) -> JwtIdentity | None:
    """Return what verifies by a key, None for one that is for something else. Raises ValueError, with no word of it."""
    import jwt  # noqa: PLC0415 - an extra

    if not isinstance(key, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of a set, not of a caller
    kid, usage, operations = key.get("kid"), key.get("use", "sig"), key.get("key_ops", ["verify"])
    if not PRIVATE.isdisjoint(key) or key.get("kty") == "oct":
        raise ValueError("it is secret, or has a secret part, and whoever reads it could sign")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise ValueError(f"its kid is no text of up to {MAX_KID} characters")
    if usage != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    named = key.get("alg")
    good, made = [], None
    for algorithm in algorithms if named is None else [each for each in algorithms if each == named]:
        # An elliptic curve has one algorithm, RSA several. Each has errors of its own, which may say what the key is.
        with contextlib.suppress(Exception):
            made = jwt.PyJWK(key, algorithm).key
            make(made, [algorithm])
            good.append(algorithm)
    if not good or made is None:
        if named in algorithms:
            raise ValueError(f"it is none of {named}")
        return None
    if key.get("kty") == "RSA" and not LEAST_BITS <= made.key_size <= MOST_BITS:
        raise ValueError(f"it has {made.key_size} bits, allowed are {LEAST_BITS} to {MOST_BITS}")
    return make(made, good)
