"""Signature Version 4: a request to whose key it was signed with (AWS General Reference, "Signing AWS API requests").

Laws:
1. What is signed is what came: the request target undecoded, the octets of the body.
2. An unknown key, a wrong secret and a changed request get the same answer, after the same work: but that a key is
   unknown is told before the body comes, for keys are no secrets, and bodies take memory.
3. No error has a word of a secret, of a signature, or of what the request's author could have put there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from rawws.errors import RawwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawws.protocol.http11 import Headers

__all__ = ["MAX_SKEW", "AwsCredential", "SignatureError", "check_signature"]

# How far the clock of who signs may be off, in seconds: as AWS has it.
MAX_SKEW = 300.0
# What requests to API Gateway are signed for.
SERVICE = "execute-api"
ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
WRONG = "the key is unknown, or the signature does not fit the request"

# The same order in all SDKs, and in AWS's own examples.
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=(?P<key>[!-.0-~]{{1,128}})/(?P<date>\d{{8}})/(?P<region>[\w-]{{1,64}})"
    r"/(?P<service>[\w-]{1,64})/aws4_request, *SignedHeaders=(?P<signed>[a-z0-9;._-]{1,4096}), *"
    r"Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)
DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class SignatureError(RawwsError):
    """A request is not signed by one of the keys; the message is for its author."""


class AwsCredential(NamedTuple):
    """The secret of a key, and the session token that requests with it must have, if they must have one."""

    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return "<AwsCredential>"


# Of unknown keys: no one has its secret, as it is checked for nothing but the time.
NOBODY = AwsCredential("")


def check_signature(
    method: str,
    target: str,
    headers: Headers,
    body: bytes | None,
    credentials: Mapping[str, AwsCredential],
    *,
    now: float,
    secure: bool,
) -> str:
    """Return the key that signed a request; `target` is the request target as it came, `now` seconds since 1970.

    `secure` says that the request came by TLS: only then it may leave its body unsigned. A body of None is still to
    come: the hash of it that the head says is believed until then; where it says none, the signature cannot be checked
    yet, and is not. Raises SignatureError.
    """
    fields = headers.get_all("Authorization")
    if len(fields) != 1:
        raise SignatureError(f"the request has {len(fields)} Authorization headers, needed is one of {ALGORITHM}")
    found = AUTHORIZATION.fullmatch(fields[0])
    if found is None:
        raise SignatureError(
            f"the Authorization header is malformed, needed is {ALGORITHM} "
            "Credential=KEY/DATE/REGION/execute-api/aws4_request, SignedHeaders=a;b, Signature=hex"
        )
    key, date, region, service, signed, signature = found.groups()
    if service != SERVICE:
        raise SignatureError(f"the signature is for another service, needed is {SERVICE}")
    stamp = _date_of(headers, date, now)
    payload = _payload_of(headers, body, secure=secure)
    if payload is None:
        if key not in credentials:
            raise SignatureError(WRONG)
        return key
    path, _, query = target.partition("?")
    request = "\n".join(
        (method, _canonical_path(path), _canonical_query(query), _canonical_headers(headers, signed), signed, payload)
    )
    scope = f"{date}/{region}/{SERVICE}/aws4_request"
    digest = hashlib.sha256(request.encode("latin-1", "replace")).hexdigest()
    credential = credentials.get(key, NOBODY)
    wanted = _signature(credential.secret, scope, f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}")
    token = ",".join(headers.get_all("X-Amz-Security-Token")) if credential.token else ""
    token_fits = hmac.compare_digest(token.encode(), credential.token.encode())
    if not (hmac.compare_digest(wanted, signature) and token_fits and credential.secret):
        raise SignatureError(WRONG)
    return key


def _date_of(headers: Headers, date: str, now: float) -> str:
    """Return the time at which a request was signed, as it says it."""
    stamps = headers.get_all("X-Amz-Date")
    if len(stamps) != 1 or DATE.fullmatch(stamps[0]) is None or not stamps[0].startswith(date):
        raise SignatureError("X-Amz-Date is not one time such as 20261127T093500Z, on the day of the credential")
    try:
        at = datetime.strptime(stamps[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError("X-Amz-Date is no time") from None
    if abs(at.timestamp() - now) > MAX_SKEW:
        raise SignatureError(f"X-Amz-Date is more than {MAX_SKEW:.0f} s off")
    return stamps[0]


def _payload_of(headers: Headers, body: bytes | None, *, secure: bool) -> str | None:
    """Return what stands for the body in what is signed, None where only the body tells."""
    own = None if body is None else hashlib.sha256(body).hexdigest()
    said = headers.get_all("X-Amz-Content-Sha256")
    if not said or said == [own]:
        return own
    if body is None and len(said) == 1 and HASH.fullmatch(said[0]):
        return said[0]
    if said == [UNSIGNED] and secure:
        return UNSIGNED
    raise SignatureError("X-Amz-Content-Sha256 is not the hash of the body, or the body is unsigned without TLS")


def _canonical_path(path: str) -> str:
    """Return a path whose segments are encoded once more; SDKs sign it without empty segments, `.` and `..`."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(quote(segment, safe="", encoding="latin-1", errors="replace"))
    end = "/" if kept and path.endswith("/") else ""
    return f"/{'/'.join(kept)}{end}"


def _canonical_query(query: str) -> str:
    """Return a query whose names and values are encoded in the one way, in order."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(f"{name}={value}" for name, value in sorted((_recoded(name), _recoded(v)) for name, _, v in pairs))


def _recoded(text: str) -> str:
    return quote(unquote_to_bytes(text.encode("latin-1", "replace")), safe="")


def _canonical_headers(headers: Headers, signed: str) -> str:
    """Return the lines of the headers that were signed, in the order in which they were."""
    names = signed.split(";")
    if "host" not in names or len({*names}) < len(names):
        raise SignatureError("SignedHeaders has no host, or a name twice")
    lines = []
    for name in names:
        values = headers.get_all(name)
        if not values:
            raise SignatureError("SignedHeaders has a name that the request has not")
        lines.append(f"{name}:{','.join(' '.join(value.split()) for value in values)}\n")
    return "".join(lines)


def _signature(secret: str, scope: str, text: str) -> str:
    """Return the signature of a text, by a key for one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
