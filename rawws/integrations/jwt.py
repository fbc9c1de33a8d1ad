"""JWT: tokens of an identity provider to the identities of a hub's clients (RFC 7519, RFC 8725), by PyJWT.

Laws:
1. The algorithm is chosen here, never by the token (RFC 8725 section 3.1), and a key is used with one family only.
2. A token without an end is none: whoever has it would have it for ever.
3. What is wrong with a token is for the log: its client hears that it is not valid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from rawws.errors import HttpError
from rawws.net.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.http.requests import HttpRequest
    from rawws.net.websocket import WebSocket
    from rawws.topics.asgi_socket import AsgiSocket

__all__ = ["JwtIdentity"]

logger = logging.getLogger("rawws.topics")

# RFC 7518 3.2: "A key of the same size as the hash output [...] or larger MUST be used with this algorithm."
SECRETS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
PUBLIC: Final = frozenset({
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"),
})  # fmt: skip
# A token of a hundred groups fits; over a connection it may be renewed by a message of 1 MiB.
MAX_TOKEN = 16384
# RFC 6750 3: what a client is told that has none, and one that has a wrong one.
MISSING: Final = (("WWW-Authenticate", "Bearer"),)
INVALID: Final = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)


@final
class JwtIdentity:
    """An `identify` for hubs: `rawws.Hub(identify=JwtIdentity(key, algorithms=["RS256"], audience="chat"))`.

    `key` is a secret, for HS256 and its like, or a public key as PEM or as PyJWT has them; or a mapping of such by
    their ids, the `kid` of tokens. `algorithms` are those of the key, named here and not by the token. A token must
    have `exp` and the claim `user`; and the `audience` and `issuer`, where they are given, and no audience where none
    is. `info` makes what others are told of the user from the claims. `leeway` is for clocks that differ, in seconds.
    Whoever brings no token is refused with 401, or is anybody where `anonymous`. The token is `client.token`.

    Raises ValueError for algorithms that there are not, that mix secrets and public keys, and for a secret that is too
    short for its algorithm; ImportError without PyJWT, which `rawws[jwt]` brings.
    """

    __slots__ = ("_algorithms", "_anonymous", "_audience", "_info", "_issuer", "_keys", "_leeway", "_user")

    def __init__(
        self,
        key: Any,
        *,
        algorithms: Iterable[str],
        audience: str | None = None,
        issuer: str | None = None,
        user: str = "sub",
        info: Callable[[dict[str, Any]], Any] | None = None,
        leeway: float = 0.0,
        anonymous: bool = False,
    ) -> None:
        self._algorithms = checked_algorithms(algorithms)
        self._keys: Mapping[Any, Any] = key if isinstance(key, Mapping) else {None: key}
        for each in self._keys.values():
            check_key(each, self._algorithms)
        if not 0 <= leeway <= 300:
            raise ValueError(f"leeway is {leeway}, allowed are 0 to 300 seconds")
        self._audience = audience
        self._issuer = issuer
        self._user = user
        self._info = info
        self._leeway = leeway
        self._anonymous = anonymous

    def __call__(self, client: WebSocket | AsgiSocket | HttpRequest) -> Identity | None:
        """Return who a client is by its token. Raises HttpError with 401 for one that is not valid, or missing."""
        if not client.token and self._anonymous:
            return None
        claims = self.claims(client.token)
        try:
            info = None if self._info is None else self._info(claims)
            return Identity(claims[self._user], info, claims["exp"] + self._leeway)
        except (ValueError, TypeError) as error:
            raise refused(error) from None

    def claims(self, token: str) -> dict[str, Any]:
        """Return what a token claims. Raises HttpError with 401 for one that is not valid, or empty."""
        import jwt  # noqa: PLC0415 - an extra

        if not token:
            raise HttpError(401, "a token is needed", MISSING)
        try:
            return self._claims(token)
        except jwt.InvalidAudienceError as error:
            # It says neither that no audience was set, nor which.
            allowed = "none, for none is set" if self._audience is None else repr(self._audience)
            raise refused(ValueError(f"{error}, allowed is {allowed}")) from None
        except jwt.InvalidIssuerError as error:
            raise refused(ValueError(f"{error}, allowed is {self._issuer!r}")) from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise refused(error) from None

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt  # noqa: PLC0415 - as above

        if len(token) > MAX_TOKEN:
            raise ValueError(f"it has {len(token)} characters, limit {MAX_TOKEN}")
        key = self._keys.get(None)
        if key is None:
            ident = jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(ident)
            if key is None:
                raise ValueError(f"there is no key {str(ident)[:64]!r}")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options={"require": ["exp", self._user]},
        )
        return claims


def refused(error: Exception) -> HttpError:
    """Return what a client is told of its token. What is wrong with that is for the log."""
    logger.info("a token is refused: %s", error)
    return HttpError(401, "the token is not valid", INVALID)


def checked_algorithms(algorithms: Iterable[str]) -> list[str]:
    """Return the algorithms of a key. Raises ValueError for none, for one that there is not, and for two families."""
    if isinstance(algorithms, str):
        raise TypeError("algorithms is str, allowed is a list of them")
    found = list(algorithms)
    known = PUBLIC.union(SECRETS)
    wrong = [each for each in found if each not in known]
    if wrong or not found:
        raise ValueError(f"algorithms are {found}, allowed are {', '.join(sorted(known))}")
    # With both, a public key could be taken for the secret that a forger signed with.
    if 0 < len(PUBLIC.intersection(found)) < len(set(found)):
        raise ValueError(f"algorithms are {found}, allowed are those of secrets or those of public keys")
    return found


def check_key(key: Any, algorithms: list[str]) -> None:
    """Raise ValueError for a secret that is too short, and for what is no key of these algorithms."""
    import jwt  # noqa: PLC0415 - as above

    least = max(SECRETS.get(each, 0) for each in algorithms)
    if not least:
        for each in algorithms:
            try:
                jwt.get_algorithm_by_name(each).prepare_key(key)
            except Exception as error:  # noqa: BLE001 - each algorithm has errors of its own
                raise ValueError(f"the key is none of {each}: {error}") from None
        return
    octets = key.encode() if isinstance(key, str) else key
    if not isinstance(octets, bytes):
        raise TypeError(f"the secret is {type(key).__name__}, allowed are str and bytes")
    if len(octets) < least:
        raise ValueError(f"the secret has {len(octets)} bytes, needed are {least} for {', '.join(algorithms)}")
    # A public key is no secret: who knows it could sign.
    if b"-----BEGIN" in octets or octets.startswith(b"ssh-"):
        raise ValueError("the secret is a public key or a certificate, needed is one that nobody knows")
