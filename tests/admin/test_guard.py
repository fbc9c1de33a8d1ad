"""Who may look, and do something: nobody but this machine, or whoever has the key, and no page of another site."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rawws
import rawws.admin
from rawws.admin.guard import AccessGuard, check_admin_key, is_loopback_host
from rawws.protocol.http11 import parse_request
from rawws.topics import Hub
from tests.admin.looks import KEY, fetch, looked_at, post
from tests.server.answers import ask, get

LOOKS = ["/metrics", "/v1/status", "/v1/connections", "/v1/topics", "/v1/presence?topic=a", "/v1/stream"]
GOOD = f"Authorization: Bearer {KEY}"


def asked(address: Any, *fields: str, target: str = "/v1/status") -> rawws.HttpRequest:
    return rawws.HttpRequest(parse_request(get(target, *fields)), {}, address, "http")


def refused(key: str | None, address: Any, *fields: str) -> int:
    answer = AccessGuard(key).check(asked(address, *fields))
    return 200 if answer is None else answer.status


@pytest.mark.parametrize("target", LOOKS)
async def test_nobody_looks_without_the_key_where_there_is_one(target: str) -> None:
    wrong = [
        (),
        (f"Authorization: Bearer {KEY}x",),
        (f"Authorization: Basic {KEY}",),
        (GOOD, GOOD),
        ("Authorization: Bearer",),
        ("Authorization: Bearer \xe9",),
    ]
    async with looked_at(Hub(), key=KEY) as (_, admin):
        for fields in wrong:
            answer = await fetch(admin, target, *fields)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert json.loads(answer.body) == {"error": "needed is Authorization: Bearer, and the key"}
        if target != "/v1/stream":
            assert (await fetch(admin, target, GOOD)).status == 200
        # They say nothing of the connections.
        for path in ("/healthz", "/readyz", "/"):
            assert (await fetch(admin, path)).status == 200


async def test_nobody_kicks_without_the_key_where_there_is_one() -> None:
    async with looked_at(Hub(), key=KEY) as (_, admin):
        assert (await post(admin, {"id": "x"})).status == 401
        assert (await post(admin, {"id": "x"}, GOOD)).status == 404


async def test_who_has_no_key_is_refused_before_the_body_comes() -> None:
    async with looked_at(Hub(), key=KEY) as (_, admin):
        half = get("/v1/kick", "Content-Type: application/json", "Content-Length: 1000", method="POST")
        assert [answer.status for answer in await ask(admin, half, ["POST"])] == [401]


@pytest.mark.parametrize("target", LOOKS)
async def test_no_page_of_another_site_is_answered(target: str) -> None:
    """By a name of its own that leads here, or by what browsers say of it."""
    async with looked_at(Hub()) as (_, admin):
        assert (await fetch(admin, target, "Host: evil.example")).status == 421
        for fields in (
            ("Origin: https://evil.example",),
            ("Origin: null",),
            ("Sec-Fetch-Site: cross-site",),
            ("Sec-Fetch-Site: same-site",),
        ):
            answer = await fetch(admin, target, *fields)
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
        for fields in (("Origin: http://localhost",), ("Sec-Fetch-Site: same-origin",), ("Sec-Fetch-Site: none",)):
            if target != "/v1/stream":
                assert (await fetch(admin, target, *fields)).status == 200


@pytest.mark.parametrize("key", [None, KEY])
async def test_no_page_of_another_site_kicks(key: str | None) -> None:
    auth = () if key is None else (GOOD,)
    async with looked_at(Hub(), key=key) as (_, admin):
        for fields in (("Origin: https://evil.example",), ("Origin: null",), ("Sec-Fetch-Site: cross-site",)):
            assert (await post(admin, {"id": "x"}, *auth, *fields)).status == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = await fetch(admin, "/v1/kick", f"Content-Type: {kind}", *auth, method="POST", body=b'{"id":"x"}')
            assert answer.status == 415
        answer = await fetch(admin, "/v1/kick", *auth, method="POST", body=b'{"id":"x"}')
        assert (answer.status, json.loads(answer.body)["error"]) == (
            415,
            "the Content-Type is missing, allowed is application/json",
        )
        # A GET, which a link or an image is, does nothing.
        assert (await fetch(admin, "/v1/kick", *auth)).status == 405
        # A preflight allows no page anything.
        preflight = ("Origin: https://evil.example", "Access-Control-Request-Method: POST")
        answer = await fetch(admin, "/v1/kick", *preflight, method="OPTIONS")
        assert not [name for name in answer.headers if name.startswith("access-control-allow-origin")]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("127.9.9.9", 1), 200),
        (("::1", 1, 0, 0), 200),
        (("::ffff:127.0.0.1", 1, 0, 0), 200),
        ("", 200),
        (None, 200),
        (("192.0.2.1", 1), 403),
        (("::ffff:192.0.2.1", 1, 0, 0), 403),
        (("fe80::1%eth0", 1, 0, 2), 403),
    ],
)
def test_without_a_key_only_this_machine_may_look(address: Any, status: int) -> None:
    assert refused(None, address) == status
    # With one, whoever has it, from wherever.
    assert refused(KEY, address, GOOD) == 200
    assert refused(KEY, address) == 401


@pytest.mark.parametrize("field", ["Forwarded: for=1", "X-Forwarded-For: 1", "X-Real-IP: 1", "Via: 1.1 x"])
def test_what_comes_by_a_proxy_did_not_come_from_this_machine(field: str) -> None:
    assert refused(None, ("127.0.0.1", 1), field) == 403
    assert refused(KEY, ("127.0.0.1", 1), field, GOOD) == 200


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "field", ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
)
def test_a_page_of_another_site_is_refused_whatever_the_server_allows(key: str | None, field: str) -> None:
    answer = AccessGuard(key).check(asked(("127.0.0.1", 1), field, GOOD))
    assert answer is not None
    assert answer.status == 403
    assert b"a page of another site asks" in answer.body


def test_a_name_that_leads_here_is_refused_wherever_it_is_mounted() -> None:
    request = rawws.HttpRequest(
        parse_request(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), {}, ("127.0.0.1", 1), "http"
    )
    with pytest.raises(rawws.HttpError, match=r"Host is 'a\.example'"):
        AccessGuard(None).check(request)


@pytest.mark.parametrize("key", ["", "short", "x" * 15, "0123456789abcde ", "0123456789abcdeé", "0123456789abcd\n="])
def test_a_key_that_is_easily_guessed_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"the key has \d+ characters, allowed are 16 and more"):
        check_admin_key(key)


def test_a_key_is_text() -> None:
    with pytest.raises(TypeError, match="the key is bytes, allowed is str"):
        check_admin_key(b"0123456789abcdef")  # type: ignore[arg-type]  # that is what is tested


def test_which_hosts_only_this_machine_can_reach() -> None:
    assert [is_loopback_host(host) for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3")] == [True] * 4
    assert [is_loopback_host(host) for host in ("0.0.0.0", "::", "192.0.2.1")] == [False] * 3


async def test_others_are_not_listened_to_without_a_key() -> None:
    async with rawws.serve(rawws.Handler(), "127.0.0.1", 0) as server:
        with pytest.raises(
            ValueError, match=r"0\.0\.0\.0 can be reached from other machines, needed for that is a key"
        ):
            rawws.admin.serve(server, host="0.0.0.0", port=0)
        async with rawws.admin.serve(server, host="0.0.0.0", port=0, key=KEY) as admin:
            port = admin.sockets[0].getsockname()[1]
            assert port
