"""WebSockets and events over HTTP/2: who shares a connection, what ends what, and that nothing else is different."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import aclosing
from typing import Any

import pytest

import rawws
import rawws.sync
from rawws.client.http2 import Http2ClientConnection
from rawws.client.pool import POOLS, Http2Pool
from rawws.net.socket import AsyncSocket, shared
from rawws.net.streams import StreamTransport
from rawws.net.transports import abort_transport
from rawws.net.turns import TURN_SIZE, turn_of
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import RequestReceived
from rawws.protocol.http2_limits import Http2Limits
from rawws.protocol.http11 import Headers
from tests.client.http2_peers import Http2PeerConnection, http2_peer
from tests.client.peers import Tls, echo, http_proxy, port, tls
from tests.client.test_client import Recorder, send_on
from tests.server.peers import eventually, run, serve, set_at_end

# A Close frame with 1000, of a server.
CLOSE = b"\x88\x02\x03\xe8"


def uri(server: rawws.Server, path: str = "/") -> str:
    return f"wss://localhost:{port(server)}{path}"


def pool() -> Http2Pool:
    return POOLS[asyncio.get_running_loop()]


def swept() -> set[AsyncSocket]:
    keepalive = shared(asyncio.get_running_loop()).clients
    assert keepalive is not None
    return keepalive.connections


def open_all(tls: Tls, server: rawws.Server, number: int, **options: Any) -> Any:
    """Connect so many at once."""
    return asyncio.gather(*[
        rawws.connect(uri(server), ssl=tls.client, http2=True, **options) for _ in range(number)
    ])  # fmt: skip


async def connected(uri: str, **options: Any) -> rawws.WebSocket:
    """Connect, as a task can."""
    return await rawws.connect(uri, **options)


async def close_all(all_of_them: list[rawws.WebSocket]) -> None:
    await asyncio.gather(*[ws.close() for ws in all_of_them])


def accept(connection: Http2PeerConnection, request: RequestReceived) -> None:
    connection.accept(request.stream)


# -- sharing


async def test_websockets_to_one_server_share_a_connection_which_ends_with_the_last() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        first = await rawws.connect(uri(server), ssl=keys.client, http2=True)
        others = await open_all(keys, server, 30)
        for number, ws in enumerate([first, *others]):
            await ws.send(f"{number}")
            assert await ws.recv() == f"{number}"
            assert ws.remote_address == first.remote_address
        figures = server.stats()
        assert (figures.accepted, figures.http2_connections, figures.opened) == (1, 1, 31)
        await close_all([first, *others[1:]])
        # One is left, and has all of it.
        await others[0].send("still here")
        assert await others[0].recv() == "still here"
        assert len(swept()) == 2
        await others[0].close()
        await eventually(lambda: server.stats().sockets == 0)
        await eventually(lambda: not swept())
        assert not pool().connections
        assert not pool().dialing
        # The next one begins anew.
        async with rawws.connect(uri(server), ssl=keys.client, http2=True):
            assert server.stats().accepted == 2


async def test_those_that_come_while_the_first_dials_wait_for_it() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        all_of_them = await open_all(keys, server, 50)
        assert server.stats().accepted == 1
        assert all(ws.response.status == 200 for ws in all_of_them)
        await close_all(all_of_them)


async def test_other_options_of_tls_do_not_share() -> None:
    keys = tls()
    other = ssl.create_default_context()
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    async with (
        serve(echo, ssl=keys.server, http2=True) as server,
        rawws.connect(uri(server), ssl=keys.client, http2=True),
        rawws.connect(uri(server), ssl=other, http2=True),
        rawws.connect(uri(server), ssl=keys.client),
    ):
        assert server.stats().accepted == 3


def test_two_event_loops_share_nothing() -> None:
    keys = tls()
    held: list[rawws.WebSocket] = []

    async def connect_from_another_loop(server_port: int) -> int:
        async with rawws.connect(f"wss://localhost:{server_port}/", ssl=keys.client, http2=True) as ws:
            assert ws.settings.loop is asyncio.get_running_loop()
            await ws.send("hi")
            assert await ws.recv() == "hi"
            return len(pool().connections)

    async def main() -> None:
        async with serve(echo, ssl=keys.server, http2=True) as server:
            held.append(await rawws.connect(uri(server), ssl=keys.client, http2=True))
            assert await asyncio.to_thread(lambda: run(connect_from_another_loop(port(server)))) == 1
            assert server.stats().accepted == 2
            await held[0].close()

    run(main())


async def test_a_server_with_few_streams_gets_more_connections() -> None:
    keys = tls()

    async with http2_peer(accept, keys.server, limits=Http2Limits(max_streams=3)) as peer:
        all_of_them = await asyncio.gather(*[
            rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1) for _ in range(8)
        ])  # fmt: skip
        assert sorted(len(connection.requests) for connection in peer.connections) == [2, 3, 3]
        for ws in all_of_them:
            ws.abort()
        await asyncio.gather(*[ws.wait_closed() for ws in all_of_them])


# -- the same as over HTTP/1.1


async def test_the_handshake_is_what_both_sides_know_of_it() -> None:
    keys = tls()
    seen: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        seen.append(ws)
        await ws.wait_closed()

    async with (
        serve(handler, ssl=keys.server, http2=True, subprotocols=["b"], origins="*") as server,
        rawws.connect(
            uri(server, "/a?b=c"),
            ssl=keys.client,
            http2=True,
            subprotocols=["a", "b"],
            origin="https://a.example",
            additional_headers={"X-A": "b"},
        ) as ws,
    ):
        assert ws.subprotocol == "b"
        assert ws.request is not None
        assert ws.response is not None
        assert (ws.request.method, ws.request.path, ws.request.http_version) == ("GET", "/a?b=c", "2")
        assert (ws.response.status, ws.response.http_version) == (200, "2")
        head = seen[0].request
        assert head is not None
        assert head.path == "/a?b=c"
        assert (head.headers["X-A"], head.headers["Origin"], head.headers["Sec-WebSocket-Version"]) == (
            "b",
            "https://a.example",
            "13",
        )
        assert "Sec-WebSocket-Key" not in head.headers


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_large_messages_go_both_ways_within_the_windows(compression: str | None) -> None:
    keys = tls()
    message = "0123456789" * 100_000
    async with (
        serve(echo, ssl=keys.server, http2=True, compression=compression) as server,
        rawws.connect(uri(server), ssl=keys.client, http2=True, compression=compression) as ws,
        rawws.connect(uri(server), ssl=keys.client, http2=True, compression=compression) as other,
    ):
        for _ in range(3):
            sending = asyncio.ensure_future(other.send(message))
            await ws.send(message)
            assert await ws.recv() == message
            await sending
            assert await other.recv() == message
        assert await ws.ping() > 0


async def test_close_codes_and_reasons_arrive() -> None:
    keys = tls()

    async def close(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.close(int(message), "theirs")

    async with serve(close, ssl=keys.server, http2=True) as server:
        mine, theirs = await open_all(keys, server, 2)
        await mine.close(4000, "mine")
        assert (mine.close_code, mine.close_reason) == (4000, "mine")
        await theirs.send("4001")
        with pytest.raises(rawws.ConnectionClosedError) as caught:
            await theirs.recv()
        assert caught.value.rcvd == (4001, "theirs")
        await theirs.wait_closed()
        await eventually(lambda: server.stats().closes == {4000: 1, 4001: 1})


async def test_callbacks_get_what_comes() -> None:
    keys = tls()
    handler = Recorder()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        ws = await rawws.connect(uri(server), ssl=keys.client, http2=True, handler=handler)
        await eventually(lambda: len(handler.events) == 3)
        await ws.close(4001, "bye")
    assert handler.events == ["open", "one", b"two", (4001, "bye")]


async def test_a_message_over_max_size_closes_with_1009_and_leaves_the_others() -> None:
    keys = tls()
    async with (
        serve(echo, ssl=keys.server, http2=True, max_size=None) as server,
        rawws.connect(uri(server), ssl=keys.client, http2=True) as other,
    ):
        ws = await rawws.connect(uri(server), ssl=keys.client, http2=True, max_size=100)
        await ws.send("x" * 101)
        with pytest.raises(rawws.ConnectionClosedError, match="sent 1009"):
            await ws.recv()
        await ws.wait_closed()
        await other.send("hi")
        assert await other.recv() == "hi"


async def test_one_that_is_not_read_stops_no_other() -> None:
    keys = tls()

    async def flood(ws: rawws.WebSocket) -> None:
        if ws.request is not None and ws.request.path == "/flood":
            for _ in range(200):
                await ws.send(bytes(65536))
            await ws.send("end")
        await echo(ws)

    async with (
        serve(flood, ssl=keys.server, http2=True, compression=None) as server,
        rawws.connect(uri(server, "/flood"), ssl=keys.client, http2=True, max_size=None) as slow,
        rawws.connect(uri(server), ssl=keys.client, http2=True) as quick,
    ):
        for number in range(20):
            await quick.send(f"{number}")
            assert await quick.recv() == f"{number}"
        assert len([await slow.recv() for _ in range(200)]) == 200
        assert await slow.recv() == "end"


async def test_a_server_that_reads_one_too_slowly_makes_its_sender_wait() -> None:
    keys = tls()
    go_on = asyncio.Event()

    async def handler(ws: rawws.WebSocket) -> None:
        if ws.request is not None and ws.request.path == "/slow":
            await go_on.wait()
        await echo(ws)

    async with (
        serve(handler, ssl=keys.server, http2=True, max_size=None, compression=None) as server,
        rawws.connect(uri(server), ssl=keys.client, http2=True, compression=None) as quick,
        set_at_end(go_on),
    ):
        slow = await rawws.connect(uri(server, "/slow"), ssl=keys.client, http2=True, compression=None, hard_limit=None)
        sent = 0

        async def send_much() -> None:
            nonlocal sent
            for _ in range(100):
                await slow.send(bytes(65536))
                sent += 1

        sending = asyncio.ensure_future(send_much())
        await eventually(lambda: slow.congested)
        for _ in range(20):
            await quick.send("hi")
            assert await quick.recv() == "hi"
        assert sent < 100
        go_on.set()
        for _ in range(100):
            assert len(await slow.recv()) == 65536
        await sending
        await slow.close()


async def test_a_server_that_reads_too_slowly_is_left_with_1013_where_nobody_waits() -> None:
    keys = tls()
    async with http2_peer(accept, keys.server, takes=False) as peer:
        other = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        ws = await rawws.connect(
            peer.uri, ssl=keys.client, http2=True, hard_limit=1 << 16, compression=None, close_timeout=0.1
        )
        with pytest.raises(rawws.ConnectionClosedError, match=r"sent 1013 .slow consumer"):
            await send_on(ws)
        await ws.wait_closed()
        assert other.ready_state is rawws.State.OPEN
        await other.close()


async def test_a_server_that_does_not_answer_the_close_is_left_after_close_timeout() -> None:
    keys = tls()
    async with http2_peer(accept, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        await ws.close()
        assert ws.close_code == 1006
        await eventually(lambda: peer.connections[0].resets)
        assert peer.connections[0].resets[0].error_code == ErrorCode.CANCEL


async def test_a_close_is_clean_and_the_stream_ended_on_both_sides() -> None:
    keys = tls()

    def accept_and_close(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        connection.send(request.stream, CLOSE, end=True)

    async with http2_peer(accept_and_close, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        with pytest.raises(rawws.ConnectionClosedOK):
            await ws.recv()
        await ws.wait_closed()
        connection = peer.connections[0]
        await eventually(lambda: connection.goaways)
        assert connection.ended == {1}
        assert not connection.resets
        (request,) = connection.requests
        assert (request.request.method, request.protocol, request.scheme) == ("CONNECT", "websocket", "https")


async def test_a_message_that_comes_with_the_response_can_be_answered_before_what_follows_it() -> None:
    keys = tls()

    def accept_and_say(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        connection.send(request.stream, b"\x81\x02hi" + CLOSE, end=True)

    async with http2_peer(accept_and_say, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert await ws.recv() == "hi"
        await ws.send("answer")
        await ws.wait_closed()
        connection = peer.connections[0]
        # A masked text of six bytes is there before the Close.
        await eventually(lambda: connection.ended)
        assert connection.data[1][:2] == b"\x81\x86"


async def test_it_comes_back_when_the_connection_is_lost() -> None:
    keys = tls()

    async def once(ws: rawws.WebSocket) -> None:
        await ws.recv()
        ws.abort()

    rounds = 0
    async with serve(once, ssl=keys.server, http2=True) as server:
        connecting = rawws.connect(uri(server), ssl=keys.client, http2=True, reconnect_delays=lambda: iter([0.0] * 9))
        async for ws in connecting:
            await ws.send("hi")
            await ws.wait_closed()
            rounds += 1
            if rounds == 3:
                break
    assert rounds == 3


# -- where there is no HTTP/2


@pytest.mark.parametrize(("http2", "context_says"), [(False, []), (False, ["http/1.1"]), ("no-websocket", [])])
async def test_a_server_without_it_is_spoken_to_in_http11(http2: bool | str, context_says: list[str]) -> None:
    keys = tls()
    if context_says:
        keys.server.set_alpn_protocols(context_says)
    async with serve(echo, ssl=keys.server, http2=http2) as server:
        all_of_them = await open_all(keys, server, 10)
        for ws in all_of_them:
            assert ws.response.status == 101
            await ws.send("hi")
            assert await ws.recv() == "hi"
        # It is remembered: nobody waits for one that asks.
        assert list(pool().plain) and not pool().connections
        later = await open_all(keys, server, 3)
        assert all(ws.response.status == 101 for ws in later)
        await close_all([*all_of_them, *later])


async def test_what_is_remembered_is_forgotten_after_a_while_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.client.pool.REMEMBERED_FOR", 0.0)
    monkeypatch.setattr("rawws.client.pool.REMEMBERED", 1)
    for http2 in (False, True, False):
        # A context of a server keeps the protocols that it was told.
        keys = tls()
        async with serve(echo, ssl=keys.server, http2=http2) as server:
            for _ in range(2):
                async with rawws.connect(uri(server), ssl=keys.client, http2=True) as ws:
                    assert ws.response is not None
                    assert ws.response.status == (200 if http2 else 101)
    assert len(pool().plain) == 1


async def test_without_tls_there_is_http11() -> None:
    async with serve(echo, http2=True) as server, rawws.connect(f"ws://localhost:{port(server)}/", http2=True) as ws:
        assert ws.response is not None
        assert ws.response.status == 101


async def test_a_context_serves_both_versions() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        for http2, status in ((True, 200), (False, 101), (True, 200)):
            async with rawws.connect(uri(server), ssl=keys.client, http2=http2) as ws:
                assert ws.response is not None
                assert ws.response.status == status


@pytest.mark.parametrize("secure", [False, True])
async def test_it_goes_through_a_proxy(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, proxys = tls(), tls()
    scheme = "https" if secure else "http"
    if secure:
        monkeypatch.setattr("rawws.client.proxies.default_context", lambda: proxys.client)
    async with (
        serve(echo, ssl=keys.server, http2=True) as server,
        http_proxy(ssl=proxys.server if secure else None) as proxy,
    ):
        there = f"{scheme}://localhost:{proxy.port}"
        all_of_them = await open_all(keys, server, 5, proxy=there)
        for ws in all_of_them:
            assert ws.response.status == 200
            await ws.send("hi")
            assert await ws.recv() == "hi"
        assert len(proxy.asked) == 1
        await close_all(all_of_them)


# -- refusals and resets


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("status", "fields"), [(401, [("WWW-Authenticate", "Basic")]), (403, []), (503, [("Retry-After", "7")])]
)
async def test_a_refusal_is_the_same_exception(http2: bool, status: int, fields: list[tuple[str, str]]) -> None:
    keys = tls()

    def refuse(_ws: rawws.WebSocket, request: rawws.Request) -> rawws.Response | None:
        if request.path == "/":
            return None
        return rawws.Response(status, "no way\n", fields)

    async with (
        serve(echo, ssl=keys.server, http2=http2, process_request=refuse) as server,
        rawws.connect(uri(server), ssl=keys.client, http2=http2) as other,
    ):
        with pytest.raises(rawws.InvalidStatus, match="no way") as caught:
            await rawws.connect(uri(server, "/a"), ssl=keys.client, http2=http2)
        assert caught.value.status == status
        assert caught.value.response.body == b"no way\n"
        assert {*fields} <= {(name.title().replace("Www", "WWW"), value) for name, value in caught.value.headers}
        await other.send("hi")
        assert await other.recv() == "hi"


async def test_a_redirect_is_followed() -> None:
    keys = tls()

    def redirect(_ws: rawws.WebSocket, request: rawws.Request) -> rawws.Response | None:
        return None if request.path == "/b" else rawws.Response(302, headers={"Location": "/b"})

    async with (
        serve(echo, ssl=keys.server, http2=True, process_request=redirect) as server,
        rawws.connect(uri(server, "/a"), ssl=keys.client, http2=True) as ws,
    ):
        assert ws.request is not None
        assert ws.request.path == "/b"


async def test_of_an_endless_body_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tls()
    monkeypatch.setattr("rawws.client.opening.BODY_WAIT", 3600.0)

    def refuse(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.core.respond(request.stream, 403, Headers([("Content-Type", "text/plain")]))
        connection.send(request.stream, b"x" * 20000)

    async with http2_peer(refuse, keys.server) as peer:
        with pytest.raises(rawws.InvalidStatus) as caught:
            await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert len(caught.value.response.body) == 16384
        await eventually(lambda: not swept())


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tls()
    monkeypatch.setattr("rawws.client.opening.BODY_WAIT", 0.05)

    def refuse(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.core.respond(request.stream, 404, Headers())

    async with http2_peer(refuse, keys.server) as peer:
        with pytest.raises(rawws.InvalidStatus, match="answered 'Not Found' and not"):
            await rawws.connect(peer.uri, ssl=keys.client, http2=True, ping_interval=0.5)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ([("Sec-WebSocket-Protocol", "c")], rawws.NegotiationError, "chose the subprotocol 'c'"),
        ([("Sec-WebSocket-Extensions", "x-a")], rawws.NegotiationError, "x-a"),
        ([("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")], rawws.InvalidUpgrade, "there are 2"),
    ],
)
async def test_a_bad_agreement_has_its_exception(
    fields: list[tuple[str, str]], error: type[rawws.HandshakeError], match: str
) -> None:
    keys = tls()
    async with http2_peer(lambda connection, request: connection.accept(request.stream, *fields), keys.server) as peer:
        with pytest.raises(error, match=match) as caught:
            await rawws.connect(peer.uri, ssl=keys.client, http2=True, subprotocols=["a", "b"])
        assert caught.value.status == 200


async def test_a_refused_stream_is_tried_anew() -> None:
    keys = tls()
    refused: list[int] = []

    def refuse_twice(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if len(refused) < 2:
            refused.append(request.stream.id)
            connection.core.reset(request.stream, ErrorCode.REFUSED_STREAM)
        else:
            connection.accept(request.stream)

    async with http2_peer(refuse_twice, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert len(peer.requests) == 3
        ws.abort()
        await ws.wait_closed()


@pytest.mark.parametrize(
    ("code", "requests", "match"),
    [
        (ErrorCode.REFUSED_STREAM, 3, "refused the stream before it did anything"),
        (ErrorCode.INTERNAL_ERROR, 1, r"the server reset the stream \(INTERNAL_ERROR\)"),
        (0x99, 1, r"the server reset the stream \(0x99\)"),
    ],
)
async def test_a_stream_that_is_reset_has_its_exception(code: int, requests: int, match: str) -> None:
    keys = tls()
    async with http2_peer(lambda connection, request: connection.core.reset(request.stream, code), keys.server) as peer:
        with pytest.raises(rawws.InvalidMessage, match=match) as caught:
            await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        # So it is tried again by `async for`.
        assert caught.value.status == 0
        assert len(peer.requests) == requests


async def test_a_server_that_wants_http11_gets_it() -> None:
    keys = tls()

    def reset(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.core.reset(request.stream, ErrorCode.HTTP_1_1_REQUIRED)

    async with http2_peer(reset, keys.server) as peer:
        # This one speaks HTTP/2 alone.
        with pytest.raises((OSError, rawws.InvalidMessage)):
            await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert len(peer.requests) == 1
        assert [websocket for _, websocket in pool().plain] == [True]


async def test_a_reset_of_an_open_websocket_is_1006() -> None:
    keys = tls()
    async with http2_peer(accept, keys.server) as peer:
        one = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        other = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        connection = peer.connections[0]
        connection.core.reset(connection.requests[0].stream, ErrorCode.CANCEL)
        connection.flush()
        with pytest.raises(rawws.ConnectionClosedError):
            await one.recv()
        assert one.close_code == 1006
        assert other.ready_state is rawws.State.OPEN
        connection.send(connection.requests[1].stream, b"\x81\x02hi", end=True)
        assert await other.recv() == "hi"
        with pytest.raises(rawws.ConnectionClosedError):
            await other.recv()
        # The end of a stream without a Close is the end of a connection.
        assert other.close_code == 1006
        await other.wait_closed()


async def test_a_websocket_that_ends_with_its_response_is_lost() -> None:
    keys = tls()

    def respond(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.core.respond(request.stream, 103, Headers())
        connection.core.respond(request.stream, 200, Headers(), end_stream=True)

    async with http2_peer(respond, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        with pytest.raises(rawws.ConnectionClosedError):
            await ws.recv()
        assert ws.close_code == 1006
        await ws.wait_closed()


# -- the end of the connection


async def test_a_lost_connection_ends_all_its_websockets_with_1006() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        all_of_them = await open_all(keys, server, 10)
        server.abort()
        for ws in all_of_them:
            with pytest.raises(rawws.ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1006
        await asyncio.gather(*[ws.wait_closed() for ws in all_of_them])
        await eventually(lambda: not swept())
        assert pool().connections == {}


async def test_goaway_lets_the_websockets_go_on_and_takes_no_more() -> None:
    keys = tls()
    async with http2_peer(accept, keys.server) as peer:
        old = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        connection = peer.connections[0]
        connection.core.go_away()
        connection.send(connection.requests[0].stream, b"\x81\x02hi")
        assert await old.recv() == "hi"
        new = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        assert len(peer.connections) == 2
        await new.close()
        await old.close()
        await eventually(lambda: connection.goaways)


async def test_what_a_goaway_leaves_out_is_asked_elsewhere() -> None:
    keys = tls()

    def go_away_once(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if connection is peer.connections[0]:
            connection.core.go_away(0)
        else:
            connection.accept(request.stream)

    async with http2_peer(go_away_once, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        assert [len(connection.requests) for connection in peer.connections] == [1, 1]
        await ws.close()


@pytest.mark.parametrize("what", ["no streams", "goaway"])
async def test_a_new_connection_that_takes_no_stream_is_tried_anew_and_blames_the_server(what: str) -> None:
    keys = tls()
    limits = Http2Limits(max_streams=0) if what == "no streams" else Http2Limits()
    begins = (lambda connection: connection.core.go_away(0)) if what == "goaway" else None
    async with http2_peer(accept, keys.server, limits=limits, begins=begins) as peer:
        with pytest.raises(rawws.InvalidMessage, match="the server takes no stream on its connection"):
            await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert len(peer.connections) == 3
        assert peer.requests == []
        # A stream of events comes back, as after any failure of a server.
        url = peer.uri.replace("wss", "https")
        async with aclosing(aiter(rawws.events(url, ssl=keys.client, http2=True))) as events:
            waiting = asyncio.ensure_future(anext(events))
            await eventually(lambda: len(peer.connections) > 6 or waiting.done())
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await eventually(lambda: not swept())
    assert pool().connections == {}


async def test_a_drain_of_a_server_ends_the_websockets_and_the_connection() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        all_of_them = await open_all(keys, server, 5)
        draining = asyncio.ensure_future(server.drain())
        for ws in all_of_them:
            with pytest.raises(rawws.ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1001
        await draining
        await eventually(lambda: not swept())


@pytest.mark.parametrize("when", ["at once", "in the handshake", "open"])
async def test_a_server_that_breaks_http2_ends_the_connection(when: str) -> None:
    keys = tls()
    # A frame of PUSH_PROMISE, which no server may send.
    broken = b"\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02"

    def react(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if when == "open":
            connection.accept(request.stream)
        else:
            connection.writer.write(broken)

    async with http2_peer(react, keys.server, greets=when != "at once") as peer:
        connecting = asyncio.ensure_future(connected(peer.uri, ssl=keys.client, http2=True))
        if when == "at once":
            await eventually(lambda: peer.connections)
            peer.connections[0].writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if when != "open":
            with pytest.raises(rawws.InvalidMessage, match="the server broke HTTP/2"):
                await connecting
        else:
            ws = await connecting
            peer.connections[0].writer.write(broken)
            with pytest.raises(rawws.ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1006
        await eventually(lambda: not swept())


async def test_a_stream_that_breaks_http2_is_reset_and_ends_alone() -> None:
    keys = tls()

    def react(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if request.request.path == "/":
            connection.accept(request.stream)
        else:
            # DATA before the response.
            connection.writer.write(b"\x00\x00\x01\x00\x00" + request.stream.id.to_bytes(4, "big") + b"x")

    async with http2_peer(react, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        with pytest.raises(rawws.InvalidMessage, match=r"broke HTTP/2: DATA comes before .*PROTOCOL_ERROR"):
            await rawws.connect(f"{peer.uri}bad", ssl=keys.client, http2=True)
        assert ws.ready_state is rawws.State.OPEN
        await ws.close()


async def test_a_connection_that_ends_before_the_response_says_so() -> None:
    keys = tls()
    async with http2_peer(lambda connection, _: abort_transport(connection.writer.transport), keys.server) as peer:
        with pytest.raises((rawws.InvalidMessage, OSError), match=r"ended before the response|reset"):
            await rawws.connect(peer.uri, ssl=keys.client, http2=True)
        assert len(peer.requests) == 1


@pytest.mark.parametrize(("number", "ends"), [(900, False), (20_000, True)])
async def test_a_server_that_asks_for_answers_without_end_ends_its_connection(number: int, ends: bool) -> None:
    keys = tls()

    def ping(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        for _ in range(number):
            connection.core.ping(b"12345678")
        connection.send(request.stream, b"\x81\x02hi")
        found.extend(*pool().connections.values())

    found: list[Http2ClientConnection] = []
    async with http2_peer(ping, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        if ends:
            with pytest.raises(rawws.ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1006
            (shared,) = found
            assert shared.core.error is not None
            assert shared.core.error.error_code == ErrorCode.ENHANCE_YOUR_CALM
        else:
            assert await ws.recv() == "hi"
        await ws.close()


# -- backpressure of the connection


WIDE = Http2Limits(window=1 << 24, connection_window=1 << 26)


async def fill(ws: rawws.WebSocket) -> None:
    """Send until the kernel of a server that does not read takes no more."""
    # Over the window, so that something is left even where the kernel takes all.
    for _ in range(300):
        ws.send(bytes(65536))
        await asyncio.sleep(0)
    assert ws.buffered > 0


async def test_a_server_that_reads_nothing_at_all_is_written_and_read_on_when_it_does() -> None:
    keys = tls()

    def accept_and_stop(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        connection.flush()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]

    async with http2_peer(accept_and_stop, keys.server, limits=WIDE) as peer:
        ws = await rawws.connect(
            peer.uri, ssl=keys.client, http2=True, compression=None, hard_limit=None, close_timeout=0.1
        )
        connection = peer.connections[0]
        await fill(ws)
        # What asks for an answer is not read while none can go out.
        for number in range(3):
            connection.core.ping(b"%08d" % number)
            connection.send(connection.requests[0].stream, b"\x81\x02hi")
            await asyncio.sleep(0)
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert [await ws.recv() for _ in range(3)] == ["hi"] * 3
        await eventually(lambda: len(connection.data.get(1, b"")) == 300 * (65536 + 14))
        await ws.close()


async def test_a_server_that_reads_nothing_at_all_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.client.http2.LINGER", 0.05)
    keys = tls()

    def accept_and_stop(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        connection.flush()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]

    async with http2_peer(accept_and_stop, keys.server, limits=WIDE) as peer:
        ws = await rawws.connect(
            peer.uri, ssl=keys.client, http2=True, compression=None, hard_limit=None, ping_interval=0.5
        )
        await fill(ws)
        ws.abort()
        await ws.wait_closed()
        # What comes now is dropped.
        connection = peer.connections[0]
        connection.send(connection.requests[0].stream, b"\x81\x02hi")
        await eventually(lambda: not swept())


class Busy(rawws.Handler):
    """Each message is a turn's work; with "end", the connection ends while the next ones wait."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        self.messages.append(message)
        loop = asyncio.get_running_loop()
        if message == "end":
            stream: StreamTransport = ws.transport
            carrier = stream.carrier
            assert isinstance(carrier, Http2ClientConnection)
            loop.call_soon(carrier.end)
        turn_of(loop).spend(TURN_SIZE + 1)


@pytest.mark.parametrize("messages", [["1", "2", "3"], ["end", "never"]])
async def test_what_is_more_than_one_turn_of_the_loop_has_room_for_waits_for_the_next(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each frame counts, as large ones do.
    monkeypatch.setattr("rawws.net.http2.GATHERED", 0)
    keys = tls()
    handler = Busy()

    def say(connection: Http2PeerConnection, request: RequestReceived) -> None:
        connection.accept(request.stream)
        for message in messages:
            connection.core.send_data(request.stream, bytes([0x81, len(message)]) + message.encode())

    async with http2_peer(say, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, handler=handler, close_timeout=0.1)
        if messages[0] == "1":
            await eventually(lambda: handler.messages == messages)
            await ws.close()
        await ws.wait_closed()
        await asyncio.sleep(0)
        assert handler.messages == [message for message in messages if message != "never"]


# -- time and cancellation


async def test_a_server_that_greets_nobody_is_left_after_open_timeout() -> None:
    keys = tls()
    async with http2_peer(lambda *_: None, keys.server, greets=False) as peer:
        results = await asyncio.gather(
            *[connected(peer.uri, ssl=keys.client, http2=True, open_timeout=0.3) for _ in range(3)],
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [TimeoutError] * 3
        assert "no connection to localhost" in str(results[0])
        await eventually(lambda: not swept())
        assert not pool().dialing
        assert not pool().connections


async def test_a_server_that_does_not_answer_is_left_after_open_timeout() -> None:
    keys = tls()

    def accept_one(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if len(connection.requests) == 1:
            connection.accept(request.stream)

    async with http2_peer(accept_one, keys.server) as peer:
        ws = await rawws.connect(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)
        with pytest.raises(TimeoutError, match="nothing came of the response"):
            await rawws.connect(peer.uri, ssl=keys.client, http2=True, open_timeout=0.3)
        await eventually(lambda: [reset.error_code for reset in peer.connections[0].resets] == [ErrorCode.CANCEL])
        await ws.close()
        await eventually(lambda: not swept())


@pytest.mark.parametrize("greets", [False, True])
async def test_who_is_cancelled_stops_no_other(greets: bool) -> None:
    keys = tls()

    def react(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if request.request.path != "/never":
            connection.accept(request.stream)

    async with http2_peer(react, keys.server, greets=greets) as peer:
        path = "never" if greets else ""
        first = asyncio.ensure_future(connected(f"{peer.uri}{path}", ssl=keys.client, http2=True))
        others = [
            asyncio.ensure_future(connected(peer.uri, ssl=keys.client, http2=True, close_timeout=0.1)) for _ in range(3)
        ]
        await eventually(lambda: len(peer.requests) == 4 if greets else peer.connections)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        if not greets:
            # The next one dials; it is greeted.
            await eventually(lambda: len(peer.connections) == 2)
            others[0].cancel()
            await eventually(lambda: len(peer.connections) == 3)
            for task in others[1:]:
                task.cancel()
            results = await asyncio.gather(*others, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        else:
            await close_all(list(await asyncio.gather(*others)))
            await eventually(lambda: peer.connections[0].resets)
        await eventually(lambda: not swept())
        assert not pool().dialing
        assert not pool().connections


async def test_what_cannot_be_dialled_is_told_to_all_who_wait() -> None:
    keys, others = tls(), tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        results = await asyncio.gather(
            *[rawws.connect(uri(server), ssl=others.client, http2=True)._connect() for _ in range(5)],
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [ssl.SSLCertVerificationError] * 5
        assert not pool().dialing
        assert not pool().connections


async def test_what_cannot_be_sent_is_told_and_leaves_no_connection() -> None:
    keys = tls()
    async with serve(echo, ssl=keys.server, http2=True) as server:
        with pytest.raises(rawws.LocalProtocolError, match=r"the header te is one of HTTP/1\.1 connections"):
            await rawws.connect(uri(server), ssl=keys.client, http2=True, additional_headers={"TE": "gzip"})
        await eventually(lambda: server.stats().sockets == 0)
        await eventually(lambda: not swept())


def test_a_socket_of_ones_own_is_not_shared() -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="http2 is True and sock is given"):
        rawws.connect("wss://a.example/", sock=sock, http2=True)


# -- events


def feed_of(tls: Tls, server: rawws.Server, path: str = "/feed", **options: Any) -> rawws.events:
    return rawws.events(f"https://localhost:{port(server)}{path}", ssl=tls.client, http2=True, **options)


def site() -> rawws.Routes:
    """A feed of three events, which goes on behind the last that a client had; what refuses; and an echo."""
    routes = rawws.Routes()

    @routes.get("/feed")
    def feed(request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        for number in range(int(request.last_event_id or 0) + 1, 4):
            stream.send(f"event {number}", id=str(number))
        return stream

    @routes.get("/large")
    def large(_request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        for _ in range(2):
            stream.send("x" * 400_000)
        return stream

    @routes.get("/over")
    def over(_request: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(204)

    @routes.get("/text")
    def text(_request: rawws.HttpRequest) -> str:
        return "no events"

    @routes.get("/moved")
    def moved(_request: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(307, headers={"Location": "/feed"})

    routes.websocket("/")(echo)
    return routes


async def take(feed: rawws.events, number: int) -> list[str]:
    return [(await anext(feed)).data or "" for _ in range(number)]


async def test_events_and_websockets_share_a_connection() -> None:
    keys = tls()
    async with serve(site(), ssl=keys.server, http2=True) as server:
        async with (
            rawws.connect(uri(server), ssl=keys.client, http2=True) as ws,
            feed_of(keys, server) as one,
            feed_of(keys, server, "/moved") as other,
        ):
            assert await take(one, 3) == await take(other, 3) == ["event 1", "event 2", "event 3"]
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert one.response is not None
            assert (one.response.status, one.response.http_version) == (200, "2")
            figures = server.stats()
            assert (figures.accepted, figures.streams) == (1, 2)
        await eventually(lambda: server.stats().sockets == 0)
        await eventually(lambda: not swept())


async def test_events_that_are_larger_than_the_window_come() -> None:
    keys = tls()
    async with serve(site(), ssl=keys.server, http2=True) as server, feed_of(keys, server, "/large") as feed:
        assert [len(event) for event in await take(feed, 2)] == [400_000] * 2


async def test_a_feed_goes_on_behind_the_last_event_over_a_new_connection() -> None:
    keys = tls()
    async with serve(site(), ssl=keys.server, http2=True) as server:
        feed = feed_of(keys, server, reconnect_delays=lambda: iter([0.0] * 9))
        assert await take(feed, 2) == ["event 1", "event 2"]
        feed.retry = 0.0
        (shared,) = next(iter(pool().connections.values()))
        shared.socket.abort()
        assert await take(feed, 1) == ["event 3"]
        await eventually(lambda: not pool().connections)
        waiting = asyncio.ensure_future(anext(feed))
        await eventually(lambda: server.stats().accepted == 2)
        await feed.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("path", "error"),
    [("/text", rawws.InvalidContentType), ("/none", rawws.InvalidStatus), ("/over", StopAsyncIteration)],
)
async def test_what_is_no_event_stream_ends_a_feed_as_over_http11(
    http2: bool, path: str, error: type[BaseException]
) -> None:
    keys = tls()
    async with serve(site(), ssl=keys.server, http2=http2) as server:
        with pytest.raises(error):
            await anext(feed_of(keys, server, path))
        await eventually(lambda: server.stats().sockets == 0)


async def test_a_feed_falls_back_to_http11() -> None:
    keys = tls()
    async with (
        serve(site(), ssl=keys.server, http2=False) as server,
        feed_of(keys, server) as one,
        feed_of(keys, server) as other,
    ):
        assert await take(one, 3) == await take(other, 3) == ["event 1", "event 2", "event 3"]
        assert one.response is not None
        assert one.response.http_version == "1.1"


async def test_a_server_without_websockets_over_http2_has_events_there() -> None:
    keys = tls()
    async with (
        serve(site(), ssl=keys.server, http2="no-websocket") as server,
        rawws.connect(uri(server), ssl=keys.client, http2=True) as ws,
        feed_of(keys, server) as one,
        feed_of(keys, server) as other,
    ):
        assert await take(one, 3) == await take(other, 3)
        assert one.response is not None
        assert ws.response is not None
        assert (one.response.http_version, ws.response.http_version) == ("2", "1.1")


async def test_trailers_and_a_length_end_a_feed() -> None:
    keys = tls()

    def react(connection: Http2PeerConnection, request: RequestReceived) -> None:
        fields = Headers([("Content-Type", "text/event-stream")])
        if request.request.path == "/length":
            fields["Content-Length"] = "9"
        connection.core.respond(request.stream, 200, fields)
        connection.core.send_data(request.stream, b"data: a\n\n", request.request.path == "/length")
        if request.request.path == "/trailers":
            connection.core.send_trailers(request.stream, Headers([("X-A", "b")]))

    async with http2_peer(react, keys.server) as peer:
        for path in ("length", "trailers"):
            url = f"{peer.uri}{path}".replace("wss:", "https:")
            feed = rawws.events(url, ssl=keys.client, http2=True, reconnect=False)
            assert [event.data async for event in feed] == ["a"]


async def test_a_refused_feed_is_asked_for_again() -> None:
    keys = tls()

    def react(connection: Http2PeerConnection, request: RequestReceived) -> None:
        if len(peer.requests) < 3:
            connection.core.reset(request.stream, ErrorCode.REFUSED_STREAM)
        else:
            connection.core.respond(request.stream, 204, Headers(), True)

    async with http2_peer(react, keys.server) as peer:
        feed = rawws.events(peer.uri.replace("wss:", "https:"), ssl=keys.client, http2=True)
        with pytest.raises(StopAsyncIteration):
            await anext(feed)
        assert len(peer.requests) == 3


async def test_a_cancelled_feed_leaves_nothing() -> None:
    keys = tls()
    async with http2_peer(lambda *_: None, keys.server) as peer:
        feed = rawws.events(peer.uri.replace("wss:", "https:"), ssl=keys.client, http2=True)
        waiting = asyncio.ensure_future(anext(feed))
        await eventually(lambda: peer.requests)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: not swept())


async def test_a_hub_client_shares_too() -> None:
    keys = tls()
    hub = rawws.Hub()
    routes = rawws.Routes()
    routes.websocket("/hub")(hub.serve)
    async with (
        serve(routes, ssl=keys.server, http2=True, subprotocols=["rawws.v1"]) as server,
        rawws.connect(uri(server, "/hub"), ssl=keys.client, http2=True, subprotocols=["rawws.v1"]),
        rawws.HubClient(uri(server, "/hub"), ssl=keys.client, http2=True, transports=["websocket"]) as client,
    ):
        await client.wait_open()
        assert server.stats().accepted == 1


async def test_the_client_without_asyncio_shares_too() -> None:
    keys = tls()

    def talk(url: str) -> tuple[Any, ...]:
        with (
            rawws.sync.connect(url, ssl=keys.client, http2=True) as one,
            rawws.sync.connect(url, ssl=keys.client, http2=True) as other,
        ):
            one.send("one")
            other.send("other")
            return one.recv(), other.recv()

    async with serve(echo, ssl=keys.server, http2=True) as server:
        assert await asyncio.to_thread(talk, uri(server)) == ("one", "other")
        assert server.stats().accepted == 1
        await eventually(lambda: server.stats().sockets == 0)
