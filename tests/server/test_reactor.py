"""The engine "epoll": plain sockets without the transports of the loop, from the connection to its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.net import engines
from rawws.net import reactor as module
from rawws.net.reactor import Acceptor, EpollTransport, adopt, reactor_of
from rawws.net.socket import AsyncSocket, shared
from rawws.net.turns import TURN_SIZE
from rawws.server.admission import ACCEPTS
from rawws.server.options import ListenOptions
from tests.server.answers import get, on
from tests.server.forked import child
from tests.server.peers import Peer, connected, eventually, narrow, request

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody")


def serve(handler: Any, **options: Any) -> Any:
    """Serve on a free port by the engine."""
    where = {} if {"path", "sock"} & options.keys() else {"host": "127.0.0.1", "port": 0}
    return rawws.serve(handler, engine="epoll", **{**where, **options})


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class Witness:
    """What speaks on a socket of these tests: it keeps what it is told."""

    lasts = False
    kind = "http"

    def __init__(self) -> None:
        self.socket: Any = None
        self.told: list[Any] = []
        self.lost = 0

    def begin(self, socket: Any) -> None:
        self.socket = socket

    def receive(self, data: bytes) -> None:
        self.told.append(data)

    def receive_eof(self) -> bool:
        self.told.append("eof")
        return False

    def lose(self) -> None:
        self.lost += 1

    def expire(self) -> None: ...

    def shut_down(self) -> None: ...

    def received(self) -> bytes:
        return b"".join(one for one in self.told if isinstance(one, bytes))


@contextlib.asynccontextmanager
async def pair(
    handler: Witness | None = None, accepted: object = ""
) -> AsyncIterator[tuple[Witness, EpollTransport, socket.socket]]:
    """Give one end of a connection to the engine, and the other one to the test."""
    witness = Witness() if handler is None else handler
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    loop = asyncio.get_running_loop()
    module.adopt(reactor_of(loop), ours.detach(), accepted, AsyncSocket(shared(loop), witness))
    transport = witness.socket.transport
    try:
        yield witness, transport, theirs
    finally:
        theirs.close()
        transport.abort()
        await eventually(lambda: witness.lost == 1)


async def fill(transport: EpollTransport) -> None:
    """Write more than the kernel takes."""
    while not transport.get_write_buffer_size():
        transport.write(bytes(10_000))


# -- a server


async def test_a_server_serves_its_connections_itself() -> None:
    async with serve(echo) as server, connected(server) as peer:
        [ws] = server.connections
        assert isinstance(ws.transport, EpollTransport)
        assert ws.remote_address == peer.sock.getsockname()
        assert ws.local_address == peer.sock.getpeername()
        await peer.send("a", b"b")
        assert [await peer.message(), await peer.message()] == ["a", b"b"]


async def test_ipv6_and_unix_sockets_have_their_addresses(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def tell(ws: rawws.WebSocket) -> None:
        seen.append((ws.remote_address, ws.local_address))

    async with serve(tell, host="::1") as server, connected(server) as peer:
        await peer.finish()
        assert seen.pop() == (peer.sock.getsockname(), peer.sock.getpeername())
    for name in ("", f"{tmp_path}/client", "\0rawws-test-of-a-client"):
        async with serve(tell, path=f"{tmp_path}/socket"):
            sock = socket.socket(socket.AF_UNIX)
            if name:
                sock.bind(name)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, f"{tmp_path}/socket")
            peer = Peer(sock)
            await peer.shake_hands()
            await peer.finish()
            peer.close()
        expected = name.encode() if name.startswith("\0") else name
        assert seen.pop() == (expected, f"{tmp_path}/socket")


async def test_large_messages_wait_on_both_sides() -> None:
    async with serve(echo, sock=narrow(), max_size=None) as server, connected(server) as peer:
        sent = os.urandom(3_000_000)
        writing = asyncio.ensure_future(peer.send(sent))
        assert await peer.message() == sent
        await writing


async def test_a_slow_reader_pauses_the_sender() -> None:
    done: list[int] = []

    async def flood(ws: rawws.WebSocket) -> None:
        for number in range(100):
            await ws.send(bytes(50_000))
            done.append(number)

    async with serve(flood, sock=narrow()) as server, connected(server, receive_buffer=2048) as peer:
        await eventually(lambda: any(ws.congested for ws in server.connections))
        assert len(done) < 50
        for _ in range(100):
            assert await peer.message() == bytes(50_000)
        assert len(done) == 100


@pytest.mark.parametrize("how", ["nothing", "half a head", "opened", "half a message", "not reading"])
async def test_a_reset_in_any_phase_ends_the_connection_and_no_other(how: str) -> None:
    async with serve(echo, sock=narrow(), max_size=None) as server, connected(server) as other:
        peer = await Peer.reach(server.sockets[0].getsockname())
        if how == "half a head":
            await peer.write(request()[:40])
        elif how != "nothing":
            await peer.shake_hands()
        if how == "half a message":
            await peer.write(b"\x82\xfe\x10\x00" + bytes(100))
        elif how == "not reading":
            sending = asyncio.ensure_future(peer.send(bytes(20_000_000)))
            await eventually(lambda: any(ws.congested for ws in server.connections))
            sending.cancel()
            await asyncio.wait([sending])
        await eventually(lambda: len(server.settings.connections) == 2)
        peer.reset()
        await eventually(lambda: len(server.settings.connections) == 1)
        await other.send("still here")
        assert await other.message() == "still here"


async def test_a_client_that_sends_no_more_has_its_response() -> None:
    async with serve(on("/", lambda _: "x" * 300_000), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/"))
        peer.sock.shutdown(socket.SHUT_WR)
        response, body = await peer.answer()
        assert (response.status, len(body)) == (200, 300_000)
        peer.close()


async def test_hundreds_of_connections_are_served_in_turns() -> None:
    async with serve(echo) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(300)]
        await asyncio.gather(*(peer.shake_hands() for peer in peers))
        for peer in peers:
            await peer.send("hi")
        assert [await peer.message() for peer in peers] == ["hi"] * 300
        server.close()
        for peer in peers:
            peer.reset()


async def test_each_connection_has_variables_of_its_own() -> None:
    class Names(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            if message:
                VARIABLE.set(str(message))
            ws.send(VARIABLE.get())

    VARIABLE.set("server")
    async with serve(Names()) as server, connected(server) as one, connected(server) as other:
        for peer, text, expected in [(one, "", "server"), (one, "one", "one"), (other, "", "server"), (one, "", "one")]:
            await peer.send(text)
            assert await peer.message() == expected


async def test_a_server_that_closed_leaves_nothing_at_the_reactor() -> None:
    async with serve(echo):
        reactor = reactor_of(asyncio.get_running_loop())
        assert reactor.members == 1
    assert reactor.members == 0


async def test_a_lack_of_descriptors_is_logged_once_and_waited_out() -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    async with serve(echo) as server:
        loop.set_exception_handler(lambda _loop, context: told.append(context))
        address = server.sockets[0].getsockname()
        sock = socket.socket()
        sock.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            await loop.sock_connect(sock, address)
            await eventually(lambda: told)
            await asyncio.sleep(1.2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peer = Peer(sock)
        await peer.shake_hands()
        peer.reset()
        assert [context["message"] for context in told] == ["cannot accept connections: Too many open files"]
        loop.set_exception_handler(before)


async def test_a_forked_child_neither_keeps_connections_nor_disturbs_them() -> None:
    async with serve(echo) as server, connected(server) as peer, connected(server) as other:
        with child():
            await peer.start_close()
            await peer.finish()
            await other.send("hi")
            assert await other.message() == "hi"
            async with connected(server) as third:
                await third.send("hi")
                assert await third.message() == "hi"


@pytest.mark.parametrize("by", ["client", "server"])
async def test_an_ended_connection_is_not_left_to_the_garbage_collector(by: str) -> None:
    def kept() -> list[Any]:
        found = [thing for thing in gc.get_objects() if isinstance(thing, EpollTransport | rawws.WebSocket)]
        return [thing for thing in found if id(thing) not in before]

    gc.collect()
    # Of other tests.
    before: set[int] = set()
    left = kept()
    before.update(map(id, left))
    gc.disable()
    try:
        async with serve(echo) as server, connected(server) as peer:
            await peer.send("a")
            assert await peer.message() == "a"
            assert len(kept()) == 2
            if by == "client":
                peer.reset()
            else:
                server.close()
                await peer.finish()
            await eventually(lambda: kept() == [])
    finally:
        gc.enable()


async def test_an_unknown_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = "io_uring"
    with pytest.raises(ValueError, match="engine is 'io_uring', allowed are 'asyncio', 'epoll' and None"):
        ListenOptions(port=0, engine=engine)
    monkeypatch.delattr(select, "epoll")
    with pytest.raises(ValueError, match="engine is 'epoll', allowed on Linux only"):
        ListenOptions(port=0, engine="epoll")
    assert ListenOptions(port=0, engine="asyncio").engine == "asyncio"


async def test_a_default_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "default_engine", lambda _loop, **_tls: "asyncio")
    for engine, by_epoll in [(None, False), ("epoll", True)]:
        options: dict[str, Any] = {"engine": engine}
        async with rawws.serve(echo, "127.0.0.1", 0, **options) as server, connected(server):
            [ws] = server.connections
            assert isinstance(ws.transport, EpollTransport) is by_epoll


@pytest.mark.parametrize("made", ["asyncio", "uvloop"])
@pytest.mark.parametrize("pure", ["", "1"])
def test_the_default_is_the_engine_that_costs_less(made: str, pure: str) -> None:
    program = f"""
import asyncio, {made}, rawws
from rawws.net.reactor import COMPILED, EpollTransport

async def main():
    async with rawws.serve(rawws.Handler(), "127.0.0.1", 0) as server:
        async with rawws.connect("ws://127.0.0.1:%d" % server.sockets[0].getsockname()[1]):
            print(COMPILED, [isinstance(ws.transport, EpollTransport) for ws in server.connections])

asyncio.Runner(loop_factory={made}.new_event_loop).run(main())
"""
    env = {**os.environ, "RAWWS_PURE": pure}
    said = subprocess.check_output([sys.executable, "-c", program], env=env, stderr=subprocess.STDOUT, text=True)
    compiled = said.startswith("True")
    assert said == f"{compiled} [{compiled or made == 'asyncio'}]\n"
    assert not (compiled and pure)


# -- a transport


@pytest.mark.parametrize(
    ("accepted", "address"),
    [(0x7F0000011F90, ("127.0.0.1", 8080)), (0xFFFFFFFFFFFF, ("255.255.255.255", 65535)), (0, ("0.0.0.0", 0))],
)
async def test_an_address_of_ipv4_may_be_one_number(accepted: int, address: tuple[str, int]) -> None:
    async with pair(accepted=accepted) as (_, transport, _):
        assert transport.get_extra_info("peername") == address


async def test_paused_reading_leaves_the_bytes_where_they_are() -> None:
    class Pausing(Witness):
        def receive(self, data: bytes) -> None:
            super().receive(data)
            self.socket.transport.pause_reading()

    async with pair(Pausing()) as (witness, transport, theirs):
        theirs.send(b"a")
        await eventually(lambda: witness.told == [b"a"])
        theirs.send(b"b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert (witness.told, transport.is_reading()) == ([b"a"], False)
        transport.resume_reading()
        await eventually(lambda: witness.told == [b"a", b"b"])


async def test_what_the_kernel_refuses_waits_and_comes_in_order() -> None:
    async with pair() as (witness, transport, theirs):
        pieces = [bytes([number % 256]) * 3_000 for number in range(200)]
        transport.writelines(pieces)
        assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
        assert witness.socket.congested
        transport.close()
        got = b""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(theirs, 65536):
            got += data
        assert got == b"".join(pieces)
        assert not witness.socket.congested


async def test_the_end_of_writing_comes_behind_what_waits_and_reading_goes_on() -> None:
    async with pair() as (witness, transport, theirs):
        await fill(transport)
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
            transport.write(b"more")
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(theirs, 65536):
            pass
        theirs.send(b"reply")
        await eventually(lambda: witness.told == [b"reply"])
        theirs.shutdown(socket.SHUT_WR)
        await eventually(lambda: witness.lost)
        assert witness.told == [b"reply", "eof"]


async def test_who_is_still_to_be_sent_something_is_read_no_more_and_the_loop_does_not_spin() -> None:
    class Staying(Witness):
        def receive_eof(self) -> bool:
            super().receive_eof()
            self.socket.pause_reading()
            return len(self.told) < 2

    async with pair(Staying()) as (witness, transport, theirs):
        theirs.shutdown(socket.SHUT_WR)
        await eventually(lambda: witness.told == ["eof"])
        await fill(transport)
        loop = asyncio.get_running_loop()
        while transport.get_write_buffer_size():
            await loop.sock_recv(theirs, 65536)
            await asyncio.sleep(0)
        assert (witness.told, witness.lost) == (["eof"], 0)
        witness.socket.resume_reading()
        await eventually(lambda: witness.lost)
        assert witness.told == ["eof", "eof"]


async def test_a_peer_that_goes_while_bytes_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of one who left nothing to read, nothing is waited for.
    monkeypatch.setattr(module, "SHUTDOWN_TIMEOUT", 3600.0)
    async with pair() as (witness, transport, theirs):
        transport.pause_reading()
        await fill(transport)
        theirs.close()
        await eventually(lambda: witness.lost)
        assert transport.is_closing()


async def test_who_waits_to_write_to_a_peer_that_is_gone_goes_on_and_reads_what_came_before() -> None:
    async with pair() as (witness, transport, theirs):
        transport.pause_reading()
        theirs.send(b"last")
        transport.writelines([bytes(3_000)] * 200)
        assert witness.socket.congested
        theirs.close()
        await eventually(lambda: not witness.socket.congested)
        # Nothing is kept for it, and who only writes waits for a moment.
        transport.write(b"nobody reads this")
        assert witness.socket.congested
        assert (transport.get_write_buffer_size(), witness.lost) == (0, 0)
        transport.resume_reading()
        await eventually(lambda: witness.lost)
        assert witness.received() == b"last"


async def test_what_waits_goes_out_to_a_peer_that_sends_no_more() -> None:
    async with pair() as (witness, transport, theirs):
        transport.writelines([bytes(3_000)] * 200)
        theirs.shutdown(socket.SHUT_WR)
        await eventually(lambda: witness.told == ["eof"])
        loop, got = asyncio.get_running_loop(), 0
        while data := await loop.sock_recv(theirs, 65536):
            got += len(data)
        assert got == 600_000


async def test_the_end_is_told_later_and_once() -> None:
    async with pair() as (witness, transport, _theirs):
        transport.abort()
        transport.abort()
        transport.close()
        # As that of a loop, it takes what comes behind its end, and does nothing.
        transport.write_eof()
        assert witness.lost == 0
        transport.write(b"nobody reads this")
        assert transport.get_write_buffer_size() == 0
        await eventually(lambda: witness.lost == 1)
        assert transport.get_extra_info("socket") is None


async def test_what_a_protocol_raises_ends_its_connection_only() -> None:
    class Failing(Witness):
        def receive(self, data: bytes) -> None:
            raise ZeroDivisionError(data)

    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    async with pair() as (witness, _, theirs), pair(Failing()) as (failing, _, other):
        other.send(b"a")
        await eventually(lambda: failing.lost)
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        theirs.send(b"b")
        await eventually(lambda: witness.told == [b"b"])
    loop.set_exception_handler(before)


async def test_one_that_is_closed_in_the_batch_of_its_event_is_not_read() -> None:
    class Closing(Witness):
        other: Any = None

        def receive(self, data: bytes) -> None:
            super().receive(data)
            self.other.socket.transport.abort()

    one, two = Closing(), Closing()
    one.other, two.other = two, one
    async with pair(one) as (_, _, first), pair(two) as (_, _, second):
        first.send(b"a")
        second.send(b"b")
        await eventually(lambda: one.lost + two.lost)
        assert sorted([one.told, two.told]) in ([[], [b"a"]], [[], [b"b"]])


async def test_an_event_of_a_number_that_is_another_descriptor_since_does_nothing() -> None:
    async with pair() as (witness, transport, theirs):
        for events in (1, 4, 16, 1 | 4 | 8 | 16):
            transport.ready(events)
        assert (witness.told, witness.lost) == ([], 0)
        theirs.send(b"a")
        await eventually(lambda: witness.told == [b"a"])


async def test_a_turn_reads_no_more_than_its_bytes_and_the_rest_comes_next() -> None:
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair()) for _ in range(40)]
        for _, _, theirs in pairs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            assert theirs.send(bytes(100_000)) == 100_000
        await eventually(lambda: all(len(witness.received()) == 100_000 for witness, _, _ in pairs))


async def test_the_engine_has_a_descriptor_only_while_it_has_sockets() -> None:
    reactor = reactor_of(asyncio.get_running_loop())
    assert reactor.fd < 0
    async with pair():
        assert reactor.fd >= 0
        assert reactor.members == 1
    await eventually(lambda: reactor.fd < 0)


async def test_the_socket_that_is_handed_out_ends_with_the_connection() -> None:
    async with pair() as (witness, transport, _theirs):
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_UNIX
        assert sock.fileno() >= 0
        assert transport.get_extra_info("peername") == ""
        assert transport.get_extra_info("sslcontext", "none") == "none"
        transport.abort()
        await eventually(lambda: witness.lost)
        assert sock.fileno() == -1


# -- bounds


async def test_one_turn_reads_its_bytes_and_one_read_more_at_the_most() -> None:
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair()) for _ in range(40)]
        for _, _, theirs in pairs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            assert theirs.send(bytes(100_000)) == 100_000
        reactor_of(asyncio.get_running_loop()).run()
        read = sum(len(witness.received()) for witness, _, _ in pairs)
        assert TURN_SIZE <= read < TURN_SIZE + 100_000


async def test_more_pieces_wait_than_the_kernel_takes_at_a_time() -> None:
    async with pair() as (_, transport, theirs):
        await fill(transport)
        transport.writelines([b"x"] * 5000)
        transport.close()
        got, loop = b"", asyncio.get_running_loop()
        while data := await loop.sock_recv(theirs, 65536):
            got += data
        assert got.count(b"x") == 5000


async def test_the_marks_are_the_last_that_are_allowed() -> None:
    async with pair() as (witness, transport, theirs):
        await fill(transport)
        transport.set_write_buffer_limits(transport.get_write_buffer_size() + 10, 0)
        before = witness.socket.congested
        transport.write(b"x" * 10)
        assert witness.socket.congested == before
        transport.write(b"x")
        assert witness.socket.congested
        assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
        loop = asyncio.get_running_loop()
        while transport.get_write_buffer_size():
            await loop.sock_recv(theirs, 65536)
        assert not witness.socket.congested
        for high, low in ((9, 10), (10, -1)):
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high, low)


async def test_a_connection_ends_and_is_told_of_no_more_though_a_child_has_its_descriptor() -> None:
    loop = asyncio.get_running_loop()
    async with pair(), pair() as (witness, transport, theirs):
        kept = os.dup(transport.fd)
        try:
            transport.abort()
            await eventually(lambda: witness.lost)
            async with asyncio.timeout(60):
                assert await loop.sock_recv(theirs, 1) == b""
            # It would be ready for ever, by its end.
            assert select.select([reactor_of(loop).fd], [], [], 0.05)[0] == []
        finally:
            os.close(kept)


async def test_so_many_are_accepted_at_a_time_and_none_by_one_that_is_closed() -> None:
    loop = asyncio.get_running_loop()
    reactor = reactor_of(loop)
    made: list[Witness] = []
    told: list[Any] = []

    def make() -> AsyncSocket:
        made.append(Witness())
        return AsyncSocket(shared(loop), made[-1])

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        acceptor = Acceptor(reactor, listening.fileno(), make, adopt)
        for _ in range(ACCEPTS + 8):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        acceptor.ready(1)
        assert len(made) == ACCEPTS
        acceptor.ready(1)
        assert len(made) == ACCEPTS + 8
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: told.append(context))
        # Said once, until one was accepted again.
        for count in (1, 2):
            for _ in range(2):
                acceptor.wait(OSError(errno.EMFILE, "of the test"))
            assert len(told) == count
            acceptor.go_on()
            stack.enter_context(socket.create_connection(listening.getsockname()))
            acceptor.ready(1)
        acceptor.wait(OSError(errno.EMFILE, "of the test"))
        acceptor.close()
        acceptor.go_on()
        loop.set_exception_handler(before)
        for witness in made:
            witness.socket.transport.abort()
        await eventually(lambda: all(witness.lost for witness in made))


async def test_nobody_is_accepted_behind_one_who_closed_the_server() -> None:
    loop = asyncio.get_running_loop()
    made: list[Witness] = []

    def make() -> AsyncSocket:
        made.append(Witness())
        acceptor.close()
        return AsyncSocket(shared(loop), made[-1])

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        acceptor = Acceptor(reactor_of(loop), listening.fileno(), make, adopt)
        for _ in range(3):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        acceptor.ready(1)
        assert len(made) == 1
        made[0].socket.transport.abort()
        await eventually(lambda: made[0].lost)
