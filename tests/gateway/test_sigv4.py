"""Signature Version 4 as botocore makes it, and each octet changed."""

from __future__ import annotations

import calendar
import hashlib
import time
from typing import NamedTuple

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from rawws import Headers
from rawws.gateway.sigv4 import MAX_SKEW, AwsCredential, SignatureError, check_signature

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CREDENTIALS = {KEY: AwsCredential(SECRET)}
TARGET = "/prod/@connections/tlqaumKKX4o4gkw%3D"
BODY = b'{"text":"Hello"}'


class Signed(NamedTuple):
    """A request as it comes in."""

    method: str
    target: str
    headers: Headers
    body: bytes | None

    @property
    def now(self) -> float:
        return calendar.timegm(time.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))

    def check(
        self, credentials: dict[str, AwsCredential] = CREDENTIALS, *, now: float | None = None, secure: bool = False
    ) -> str:
        return check_signature(*self, credentials, secure=secure, now=self.now if now is None else now)

    def with_header(self, name: str, *values: str) -> Signed:
        others = [(each, value) for each, value in self.headers.raw_items() if each.lower() != name.lower()]
        return self._replace(headers=Headers([*others, *((name, value) for value in values)]))


def sign(
    method: str = "POST",
    target: str = TARGET,
    body: bytes = BODY,
    *,
    service: str = "execute-api",
    token: str | None = None,
    **more: str,
) -> Signed:
    """Sign as botocore does for its own requests."""
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    request = AWSRequest(method, f"http://gateway.example:8765{target}", fields, body)
    SigV4Auth(Credentials(KEY, SECRET, token), service, "eu-central-1").add_auth(request)
    headers = Headers([("Host", "gateway.example:8765"), *request.headers.items()])
    return Signed(method, target, headers, body)


@pytest.mark.parametrize(
    "target",
    [
        TARGET,
        "/prod/%40connections/tlqaumKKX4o4gkw%3D",
        "/@connections/a%2Fb%3D",
        "/prod/@connections/a=",
        "/prod//@connections/./a%3D",
        "/x/../prod/@connections/a%3D",
        "/prod/@connections/a%3D/",
        "/",
        "/prod?b=2&a=%C3%BC&a=1&c&d=~%20%2B&a-b=3",
        "/prod/%E4%BD%A0~-._/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_botocore_signed_is_taken(method: str, target: str) -> None:
    assert sign(method, target, BODY if method == "POST" else b"").check() == KEY


def test_white_space_and_other_alphabets_in_a_signed_header_count_as_botocore_has_it() -> None:
    signed = sign(X_Note="a   b \t c")
    assert "x-note" in signed.headers["Authorization"]
    assert signed.check() == KEY
    # What goes out is UTF-8, and is read as octets.
    signed = sign(X_Note="Grüße")
    assert signed.with_header("X-Note", "Grüße".encode().decode("latin-1")).check() == KEY


def test_temporary_credentials_need_their_token_where_one_is_configured() -> None:
    signed = sign(token="session/token+1==")
    assert signed.check() == KEY
    assert signed.check({KEY: AwsCredential(SECRET, "session/token+1==")}) == KEY
    for credential in (AwsCredential(SECRET, "another"), AwsCredential(SECRET, "session/token+1== ")):
        with pytest.raises(SignatureError, match="does not fit"):
            signed.check({KEY: credential})
    with pytest.raises(SignatureError, match="does not fit"):
        sign().check({KEY: AwsCredential(SECRET, "session/token+1==")})


def test_a_body_that_is_said_to_have_a_hash_has_it() -> None:
    hashed = sign(X_Amz_Content_SHA256="40ea8eddeeccce9a3b73a8a0f4d4e66e8b0d3aee9fd2ac4a9acb4d1bc2f7a3c4")
    with pytest.raises(SignatureError, match="hash of the body"):
        hashed.check()


def test_before_the_body_comes_the_signature_is_checked_where_the_head_has_its_hash() -> None:
    hashed = sign(X_Amz_Content_SHA256=hashlib.sha256(BODY).hexdigest())
    assert hashed.check() == KEY
    early = hashed._replace(body=None)
    assert early.check() == KEY
    for wrong in (
        early.with_header("X-Amz-Content-SHA256", "0" * 64),
        early.with_header("X-Amz-Content-SHA256", "nonsense"),
        early._replace(target="/prod/@connections/another"),
    ):
        with pytest.raises(SignatureError):
            wrong.check()
    # Of the body that comes, it is checked again.
    with pytest.raises(SignatureError, match="hash of the body"):
        hashed._replace(body=b"another").check()


def test_before_the_body_comes_all_but_the_signature_is_checked_where_only_the_body_has_its_hash() -> None:
    early = sign()._replace(body=None)
    assert early._replace(target="/prod/@connections/another").check() == KEY
    with pytest.raises(SignatureError, match="the key is unknown"):
        early.check({})
    with pytest.raises(SignatureError, match="off"):
        early.check(now=early.now + 2 * MAX_SKEW)
    with pytest.raises(SignatureError, match="another service"):
        sign(service="lambda")._replace(body=None).check()


def test_an_unsigned_body_is_taken_over_tls_only() -> None:
    unsigned = sign(X_Amz_Content_SHA256="UNSIGNED-PAYLOAD")
    assert unsigned.check(secure=True) == KEY
    assert unsigned._replace(body=b"another").check(secure=True) == KEY
    with pytest.raises(SignatureError, match="without TLS"):
        unsigned.check()


@pytest.mark.parametrize(("off", "taken"), [(-MAX_SKEW, True), (MAX_SKEW, True), (301, False), (-301, False)])
def test_a_time_may_be_five_minutes_off(off: float, taken: bool) -> None:
    signed = sign()
    if taken:
        assert signed.check(now=signed.now + off) == KEY
    else:
        with pytest.raises(SignatureError, match="more than 300 s off"):
            signed.check(now=signed.now + off)


def changed(name: str, old: str, new: str) -> Signed:
    signed = sign()
    assert old in signed.headers[name]
    return signed.with_header(name, signed.headers[name].replace(old, new))


# All that is signed here is so within a second; tests may run long after that.
NOW = sign().now


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (sign().with_header("Authorization"), "0 Authorization headers"),
        (sign().with_header("Authorization", "a", "b"), "2 Authorization headers"),
        (sign().with_header("Authorization", "Bearer x"), "malformed"),
        (changed("Authorization", "aws4_request", "aws3_request"), "malformed"),
        (changed("Authorization", "host;", "x" * 5000), "malformed"),
        (sign(service="lambda"), "another service"),
        (changed("Authorization", "host;", "hosts;"), "has no host"),
        (changed("Authorization", "host;", "host;host;"), "a name twice"),
        (changed("Authorization", "host;", "host;x-none;"), "the request has not"),
        (sign().with_header("X-Amz-Date"), "not one time"),
        (sign().with_header("X-Amz-Date", "tomorrow"), "not one time"),
        (sign().with_header("X-Amz-Date", "20010101T000000Z"), "on the day of the credential"),
        (changed("Authorization", KEY, "AKIDUNKNOWN"), "the key is unknown, or"),
    ],
)
def test_what_is_wrong_is_said(request_: Signed, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason) as caught:
        check_signature(*request_, CREDENTIALS, now=NOW, secure=False)
    assert SECRET not in str(caught.value)


def test_a_time_that_no_calendar_has_is_none() -> None:
    signed = sign()
    day = signed.headers["X-Amz-Date"][:8]
    with pytest.raises(SignatureError, match="no time"):
        signed.with_header("X-Amz-Date", f"{day}T256199Z").check(now=0.0)


def test_a_wrong_secret_and_an_unknown_key_are_answered_alike() -> None:
    answers = []
    for credentials in ({KEY: AwsCredential("wrong")}, {}, {KEY: AwsCredential("")}):
        with pytest.raises(SignatureError) as caught:
            sign().check(credentials)
        answers.append(str(caught.value))
    assert len(set(answers)) == 1


def test_an_unknown_key_is_not_signed_for_by_the_empty_secret() -> None:
    request = AWSRequest("GET", f"http://h{TARGET}", {}, b"")
    SigV4Auth(Credentials("AKIDX", "none"), "execute-api", "x").add_auth(request)
    auth = SigV4Auth(Credentials("AKIDX", "none"), "execute-api", "x")
    auth.credentials = type("Empty", (), {"access_key": "AKIDX", "secret_key": "", "token": None})()
    del request.headers["Authorization"]
    auth.add_auth(request)
    with pytest.raises(SignatureError, match="unknown"):
        Signed("GET", TARGET, Headers([("Host", "h"), *request.headers.items()]), b"").check()


def test_no_repr_says_a_secret() -> None:
    assert SECRET not in f"{CREDENTIALS} {AwsCredential(SECRET, 'token')!r}"


SIGNED = sign(X_Amz_User_Agent="aws-sdk-js/3", Amz_Sdk_Invocation_Id="5f0e11a2")
PARTS = {
    "method": SIGNED.method,
    "target": SIGNED.target,
    "body": BODY.decode(),
    **{name: SIGNED.headers[name] for name in SIGNED.headers},
}


@given(data=st.data(), part=st.sampled_from(sorted(PARTS)))
def test_each_changed_octet_is_refused(data: st.DataObject, part: str) -> None:
    text = PARTS[part]
    place = data.draw(st.integers(0, len(text) - 1))
    octet = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[place]))
    wrong = text[:place] + octet + text[place + 1 :]
    if part == "method":
        signed = SIGNED._replace(method=wrong)
    elif part == "target":
        signed = SIGNED._replace(target=wrong)
    elif part == "body":
        signed = SIGNED._replace(body=wrong.encode())
    else:
        signed = SIGNED.with_header(part, wrong)
    with pytest.raises(SignatureError):
        signed.check(now=SIGNED.now)


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.text(max_size=60), st.binary(max_size=20))
def test_hostile_requests_raise_nothing_else(field: str, target: str, body: bytes) -> None:
    headers = Headers([("Host", "h"), ("X-Amz-Date", SIGNED.headers["X-Amz-Date"])])
    headers.add_checked("Authorization", field)
    with pytest.raises(SignatureError):
        Signed("POST", target, headers, body).check()
    signed = SIGNED._replace(target=f"/{target}?{target}=&&=", body=body)
    with pytest.raises(SignatureError):
        signed.check()
