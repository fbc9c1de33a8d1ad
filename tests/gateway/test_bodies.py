"""Bodies at the HTTP APIs of a gateway: none is read of who has no key, and those of all together are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from pusher.signature import sign

import rawws
from rawws.gateway import main
from rawws.gateway.bodies import ADDRESSES, CLIENTS, MAX_BODIES, MAX_BODY, BodyRooms
from rawws.gateway.loading import read_config
from rawws.gateway.own import most_of
from tests.attacks.watch import memory
from tests.cli.commands import port, start
from tests.gateway.aws_running import KEY as AWS_KEY
from tests.gateway.aws_running import chat_api
from tests.gateway.own_running import JWT, token_file
from tests.gateway.running import APP, KEY, SECRET, app_file, gateway
from tests.processes import LOOPBACK, Process
from tests.server.peers import eventually

ID = "tlqaumKKX4o4gkw%3D"
EVENTS, PUBLISH, DEVICES = f"/apps/{APP}/events", f"/v1/apps/{APP}/publish", f"/v1/apps/{APP}/devices/phone"
OTHER = "o" * 32
POST = f"/prod/@connections/{ID}"
BEARER = f"Authorization: Bearer {SECRET}"
TEXT = app_file() + chat_api("http://127.0.0.1:1/")
# What each of these two has for those who have its key.
SERVER_ROOM = (MAX_BODIES - CLIENTS) // 2
# Two apps of rawws.v1, and what one address of the clients of each has.
OWN = (
    token_file()
    + f"""
[[app]]
id = "4"
keys = [{{ key = "other", secret = "{OTHER}" }}]
{JWT}
"""
)
CLIENT_ROOM = CLIENTS // 2 // ADDRESSES
POSTS = 800
STRANGERS = 150


class Told(NamedTuple):
    """What a request was answered before its body was sent whole."""

    status: int
    words: bytes


def signed(path: str, md5: str, *, secret: str = SECRET, stamp: str = "") -> str:
    """Return a request target, signed as the libraries of Pusher do."""
    query = {"auth_key": KEY, "auth_timestamp": stamp or str(int(time.time())), "auth_version": "1.0", "body_md5": md5}
    text = f"POST\n{path}\n" + "&".join(f"{name}={query[name]}" for name in sorted(query))
    return f"{path}?{urlencode({**query, 'auth_signature': sign(secret, text)})}"


def authorized(key: str, *fields: str) -> tuple[str, ...]:
    """Return the head of a request to API Gateway whose signature is over a body that did not come yet."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{key}/{stamp[:8]}/eu-central-1/execute-api/aws4_request"
    return (
        f"X-Amz-Date: {stamp}",
        f"Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
        *fields,
    )


async def half(at: int, target: str, *fields: str, size: int = 1000, sent: bytes = b"", method: str = "POST") -> Told:
    """Announce a body, send a part of it, and return what comes then."""
    reader, writer = await asyncio.open_connection(LOOPBACK, at)
    try:
        head = [f"{method} {target} HTTP/1.1", "Host: a", f"Content-Length: {size}", *fields, "", ""]
        writer.write("\r\n".join(head).encode() + sent)
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"\r\n\r\n")
            return Told(int(answer.split()[1]), answer + await reader.read())
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("target", "fields", "status", "words"),
    [
        (EVENTS, (), 401, b"auth_version is ''"),
        ("/apps/nobody/events", (), 404, b"there is no such app"),
        (partial(signed, EVENTS, "0" * 32, secret="wrong"), (), 401, b"the key or the signature is wrong"),
        (partial(signed, EVENTS, "0" * 32, stamp="1"), (), 401, b"auth_timestamp is '1'"),
        (f"/users/ann/terminate_connections?auth_key={KEY}", (), 401, b"auth_version is ''"),
        (PUBLISH, (), 401, b'"error":"unauthorized"'),
        (PUBLISH, ("Authorization: Bearer wrong",), 401, b'"error":"unauthorized"'),
        (PUBLISH, (BEARER, "Origin: https://example.com"), 403, b'"error":"refused"'),
        (partial(signed, PUBLISH, "0" * 32, secret="wrong"), (), 401, b'"error":"unauthorized"'),
        (POST, (), 403, b"x-amzn-errortype: ForbiddenException"),
        (POST, partial(authorized, "nobody"), 403, b"the key is unknown, or the signature does not fit the request"),
        (POST, partial(authorized, AWS_KEY, f"X-Amz-Content-Sha256: {'0' * 64}"), 403, b"ForbiddenException"),
    ],
)
async def test_a_stranger_is_refused_before_a_body_comes(
    target: str | Callable[[], str], fields: tuple[str, ...] | Callable[[], tuple[str, ...]], status: int, words: bytes
) -> None:
    # What has a time in it is made now: tests are collected half an hour before some of them run.
    target = target if isinstance(target, str) else target()
    fields = fields if isinstance(fields, tuple) else fields()
    async with gateway(TEXT) as one:
        told = await half(one.port, target, *fields)
        assert told.status == status
        assert words.lower() in told.words.lower()
        assert b"connection: close" in told.words.lower()
        assert one.server.context.body_bytes == 0
        # The refusal is counted once.
        assert sum(sum(figures.requests.values()) for figures in one.gateway.figures.values()) == 1


async def test_a_body_that_is_not_the_signed_one_is_refused_when_it_is_here() -> None:
    async with gateway(TEXT) as one:
        for path, words in ((EVENTS, b"body_md5 is not that of the body"), (PUBLISH, b'"error":"unauthorized"')):
            told = await half(one.port, signed(path, "0" * 32), "Connection: close", size=2, sent=b"{}")
            assert (told.status, words in told.words) == (401, True)


async def test_a_message_that_is_too_long_for_api_gateway_is_refused_before_it_comes() -> None:
    async with gateway(TEXT) as one:
        told = await half(one.port, POST, *authorized(AWS_KEY), size=131_073)
        assert (told.status, b"PayloadTooLargeException" in told.words) == (413, True)


async def test_a_push_of_a_stranger_and_one_for_an_app_without_push_are_refused_before_a_body_comes() -> None:
    async with gateway(TEXT) as one:
        assert (await half(one.port, DEVICES, method="PUT")).status == 401
        assert (await half(one.port, DEVICES, BEARER, method="PUT")).status == 409


async def test_requests_that_come_too_early_are_refused_before_their_bodies_come() -> None:
    async with gateway(app_file("[app.limits]\nrequests = 1")) as one:
        for _ in range(2):
            assert (await half(one.port, PUBLISH, BEARER, "Connection: close", size=2, sent=b"{}")).status == 400
        told = await half(one.port, PUBLISH, BEARER)
        assert (told.status, b"retry-after: 1" in told.words.lower()) == (429, True)


async def test_a_post_of_a_client_is_refused_by_its_head_where_it_can_be() -> None:
    async with gateway(OWN) as one:
        for target, size, status, words in [
            ("/connect/nobody", 1000, 404, b"there is no such app"),
            (f"/connect/{APP}", MAX_BODY, 413, b'"error":"size"'),
        ]:
            told = await half(one.port, target, size=size)
            assert (told.status, words in told.words) == (status, True)
        assert one.server.context.body_bytes == 0


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        *[(method, f"/connect/{APP}{end}", 413) for method in ("GET", "HEAD") for end in ("", "/rawws.js")],
        *[
            ("OPTIONS", target, 204)
            for target in (f"/connect/{APP}", f"/connect/{APP}/rawws.js", EVENTS, PUBLISH, POST)
        ],
    ],
)
@pytest.mark.parametrize("announced", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_no_body_is_kept_of_a_request_that_has_no_use_for_one(
    method: str, target: str, status: int, announced: str
) -> None:
    async with gateway(OWN + chat_api("http://127.0.0.1:1/")) as one:
        reader, writer = await asyncio.open_connection(LOOPBACK, one.port)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{announced}\r\n\r\n4\r\nbody".encode())
        assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
        assert one.server.context.body_bytes == 0
        writer.close()


async def test_a_post_of_a_client_that_does_not_say_its_size_ends_at_the_limit() -> None:
    async with gateway(OWN) as one:
        reader, writer = await asyncio.open_connection(LOOPBACK, one.port)
        writer.write(f"POST /connect/{APP} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(32):
                writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
                await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        assert one.server.context.body_bytes == 0
        writer.close()


@pytest.mark.parametrize(
    ("target", "fields", "kind", "app", "face"),
    [
        (partial(signed, EVENTS, "0" * 32), (), "requests", APP, "pusher"),
        (PUBLISH, (BEARER,), "requests", APP, "own"),
        (POST, partial(authorized, AWS_KEY), "requests", "chat", "aws"),
        (f"/connect/{APP}", (), "asked", APP, "own"),
    ],
)
async def test_a_body_that_finds_no_room_is_counted_once_by_its_app_and_face(
    target: str | Callable[[], str],
    fields: tuple[str, ...] | Callable[[], tuple[str, ...]],
    kind: str,
    app: str,
    face: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = target if isinstance(target, str) else target()
    fields = fields if isinstance(fields, tuple) else fields()
    monkeypatch.setattr(main, "MAX_BODIES", 20)
    async with gateway(token_file() + chat_api("http://127.0.0.1:1/")) as one:
        _, held = await asyncio.open_connection(LOOPBACK, one.port)
        held.write(f"POST /connect/{APP} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{'x' * 15}".encode())
        await eventually(lambda: one.server.context.body_bytes == 15)
        assert (await half(one.port, target, *fields, sent=b"x" * 10)).status == 503
        found = {
            (*key, name): dict(count)
            for key, figures in one.gateway.figures.items()
            for name in ("requests", "asked")
            if (count := getattr(figures, name))
        }
        assert found == {(app, face, kind): {503: 1}}
        held.close()


async def test_bodies_that_clients_post_have_a_part_of_their_app_and_address() -> None:
    async with gateway(OWN) as one:
        found = await asyncio.gather(*[push(one.port, f"/connect/{APP}", size=65536) for _ in range(100)])
        statuses = [status for status, _ in found]
        assert set(statuses) == {0, 503}
        assert one.server.context.body_bytes <= CLIENT_ROOM
        assert 0 < statuses.count(0) <= CLIENT_ROOM // 65535
        # Neither the servers of the app notice, nor clients of others.
        for target, fields in [
            (PUBLISH, [BEARER]),
            ("/v1/apps/4/publish", [f"Authorization: Bearer {OTHER}"]),
            ("/connect/4", []),
        ]:
            told = await half(one.port, target, *fields, "Connection: close", size=2, sent=b"{}")
            assert told.status in {400, 401}, told
        told = await half(one.port, f"/connect/{APP}", "Connection: close", size=2, sent=b"{}")
        assert told.status in {400, 401}, told
        for _, writer in found:
            writer.close()
        await eventually(lambda: one.server.context.body_bytes == 0)
        assert not one.gateway.bodies.held


@pytest.mark.parametrize("more", ["", "limits = { event_size = 900000 }"])
def test_at_least_four_bodies_of_one_address_fit_whatever_their_size(more: str) -> None:
    config = read_config(token_file(more))
    request = rawws.HttpRequest(rawws.Request("POST", "/", rawws.Headers()), {}, (LOOPBACK, 1), "http")
    most = most_of(config.apps[0])
    BodyRooms(lambda: config).enter_client(config.apps[0], request, most)
    room = request.body_room
    assert room is not None
    for _ in range(4):
        room.take(0, most)


# -- in a process of its own, whose memory is looked at


@contextmanager
def running(folder: Path, text: str = TEXT) -> Iterator[Process]:
    (folder / "gateway.toml").write_text(text)
    with start(folder, "gateway", "gateway.toml", "--port", "0") as process:
        yield process


def forget_peak(process: Process) -> int:
    """Forget the peak of memory so far (proc(5), clear_refs); return what it takes now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return memory(process, "VmRSS")


async def push(at: int, target: str, *fields: str, size: int = MAX_BODY) -> tuple[int, asyncio.StreamWriter]:
    """Send all but the last byte of a body; return the status of an answer, 0 for none, and the connection.

    That is for whoever wants the server to keep what it has. By default, it is the largest body.
    """
    reader, writer = await asyncio.open_connection(LOOPBACK, at)
    head = [f"POST {target} HTTP/1.1", "Host: a", f"Content-Length: {size}", *fields, "", ""]
    writer.write("\r\n".join(head).encode())
    answered = asyncio.ensure_future(reader.readline())
    piece = bytes(65536)
    with contextlib.suppress(ConnectionError):
        for number in range(size // len(piece)):
            writer.write(piece[1:] if number == 0 else piece)
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait({answered, drained}, return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            await asyncio.wait({drained})
            if answered.done():
                break
    # What is on its way is read, or refused.
    await asyncio.wait({answered}, timeout=1)
    answered.cancel()
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        line = await answered
        return int(line.split()[1] if line else 0), writer
    return 0, writer


async def test_bodies_of_many_strangers_take_no_memory(tmp_path: Path) -> None:
    targets = [(EVENTS, ()), (PUBLISH, ()), (POST, ()), (POST, authorized("nobody"))]
    with running(tmp_path) as process:
        at, before = port(process), forget_peak(process)
        asked = [push(at, target, *fields) for target, fields in (targets * STRANGERS)[:STRANGERS]]
        found = await asyncio.gather(*asked)
        growth = memory(process, "VmHWM") - before
        for _, writer in found:
            writer.close()
    assert {status for status, _ in found} <= {0, 401, 403}
    assert sum(status > 0 for status, _ in found) > STRANGERS // 2
    # One read of each may wait. Their bodies were 600 MB.
    assert growth < 64 << 20


async def test_bodies_of_the_servers_of_an_app_take_so_much_memory_and_no_more(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        at, before = port(process), forget_peak(process)
        found = await asyncio.gather(*[push(at, PUBLISH, BEARER) for _ in range(4 * MAX_BODIES // MAX_BODY)])
        growth = memory(process, "VmHWM") - before
        for _, writer in found:
            writer.close()
        statuses = {status for status, _ in found}
        assert statuses <= {0, 503}
        assert 503 in statuses
        # Without a bound it would be four times as much. An array that grows has an eighth more than it needs, each
        # connection a read, and glibc keeps some of what is freed.
        assert SERVER_ROOM // 2 < growth < SERVER_ROOM * 5 // 2
        # Who has the key of another has room.
        assert (await half(at, POST, *authorized(AWS_KEY, "Connection: close"), size=2, sent=b"{}")).status == 403
        # There is room when they are gone.
        async with asyncio.timeout(60):
            while (await half(at, PUBLISH, BEARER, "Connection: close", size=2, sent=b"{}")).status != 400:
                pass


async def test_bodies_that_clients_post_take_little_memory(tmp_path: Path) -> None:
    with running(tmp_path, OWN) as process:
        at, before = port(process), forget_peak(process)
        found = await asyncio.gather(*[push(at, f"/connect/{APP}", size=65536) for _ in range(POSTS)])
        growth = memory(process, "VmHWM") - before
        for _, writer in found:
            writer.close()
    assert {status for status, _ in found} == {0, 503}
    # They were 52 MB; there is a connection for each.
    assert growth < CLIENT_ROOM + (12 << 20)
