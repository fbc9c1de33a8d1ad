"""`rawws.sync`: the client without asyncio, in threads, after forks, interrupted, and at the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import pytest

import rawws
import rawws.sync
from rawws.sync.background import background
from rawws.topics import endpoints
from tests.processes import LOOPBACK, ROOT, eventually

KEY = "0123456789abcdef"


@final
class Served:
    """A server in a thread: what was done to its connections is in `ends`, and `go` lets a handler go on."""

    def __init__(self) -> None:
        self.hub = rawws.Hub()
        self.ends: list[tuple[int | None, str | None]] = []
        self.go = threading.Event()
        self.address = ""

    async def talk(self, ws: rawws.WebSocket) -> None:
        try:
            async for message in ws:
                if message == "interrupt":
                    # One that came just before the thread began to wait does not wake it.
                    while not self.go.is_set():
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                        await asyncio.to_thread(self.go.wait, 1)
                elif message == "wait":
                    await asyncio.to_thread(self.go.wait)
                    await ws.send("waited")
                elif message == "leave":
                    await ws.close(1000, "bye")
                elif message == "fail":
                    await ws.close(4000, "no more")
                else:
                    await ws.send(message)
        finally:
            self.ends.append((ws.close_code, ws.close_reason))

    async def serve(self, ready: Future[str], over: Future[None]) -> None:
        routes = rawws.Routes(endpoints.api_routes(self.hub, "/api", keys=[KEY]))
        routes.websocket("/")(self.talk)
        routes.post("/strange/publish")(lambda _: rawws.Response.json({"cursor": 7}))
        routes.post("/plain/publish")(lambda _: rawws.Response(503, "later\nor never"))

        def choose(_: rawws.WebSocket, offered: Sequence[str]) -> str | None:
            return "b" if "b" in offered else None

        async with rawws.serve(routes, LOOPBACK, 0, select_subprotocol=choose, close_timeout=1) as server:
            ready.set_result(f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}")
            await asyncio.wrap_future(over)

    @property
    def uri(self) -> str:
        return f"ws://{self.address}/"

    @property
    def api(self) -> str:
        return f"http://{self.address}/api"


@pytest.fixture
def served() -> Iterator[Served]:
    made, ready, over = Served(), Future[str](), Future[None]()
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(ready, over)))
    thread.start()
    made.address = ready.result(60)
    yield made
    made.go.set()
    over.set_result(None)
    thread.join()


# -- a connection


def test_what_is_sent_comes_back_and_the_end_is_clean(served: Served) -> None:
    with rawws.sync.connect(served.uri, subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        assert ws.request is not None
        assert ws.request.path == "/"
        assert ws.response is not None
        assert ws.response.status == 101
        assert ws.remote_address == (LOOPBACK, int(served.address.partition(":")[2]))
        assert isinstance(ws.local_address, tuple)
        ws.send("Grüße")
        assert ws.recv() == "Grüße"
        ws.send(b"\x00\xff")
        assert ws.recv(timeout=60) == b"\x00\xff"
        ws.send(part for part in ("in ", "parts"))
        assert ws.recv(decode=False) == b"in parts"
        ws.send(memoryview(b"as text"), text=True)
        assert ws.recv() == "as text"
        ws.send(bytearray(b"bytes"))
        assert ws.recv(decode=True) == "bytes"
        assert 0 < ws.ping() < 60
        assert 0 < ws.ping(b"data", timeout=60) < 60
        assert ws.latency > 0
        assert (ws.close_code, ws.close_reason) == (None, None)
        assert repr(ws).startswith("<rawws.sync.ClientConnection OPEN (")
    assert (ws.close_code, ws.close_reason) == (1000, "")
    ws.close()
    with pytest.raises(rawws.ConnectionClosedOK):
        ws.send("late")
    eventually(lambda: served.ends == [(1000, "")])


def test_an_iteration_ends_where_the_connection_ends_well_and_raises_where_it_does_not(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws:
        for text in ("one", "two", "leave"):
            ws.send(text)
        assert list(ws) == ["one", "two"]
        with pytest.raises(rawws.ConnectionClosedOK):
            ws.recv()
    with rawws.sync.connect(served.uri) as ws:
        ws.send("fail")
        with pytest.raises(rawws.ConnectionClosedError, match="no more") as caught:
            list(ws)
        assert caught.value.code == ws.close_code == 4000


def test_close_says_why(served: Served) -> None:
    ws = rawws.sync.connect(served.uri)
    with pytest.raises(rawws.LocalProtocolError):
        ws.close(99)
    ws.close(4001, "enough")
    eventually(lambda: served.ends == [(4001, "enough")])


def test_a_time_limit_loses_nothing(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws:
        ws.send("wait")
        for seconds in (0, 0.01, -1):
            with pytest.raises(TimeoutError):
                ws.recv(timeout=seconds)
        served.go.set()
        assert ws.recv() == "waited"
        ws.send("next")
        eventually(lambda: _has(ws, "next"))


def _has(ws: rawws.sync.ClientConnection, message: str) -> bool:
    """Look for a message, again and again."""
    with contextlib.suppress(TimeoutError):
        return ws.recv(timeout=0) == message
    return False


def test_an_interrupt_ends_what_is_waited_for_and_loses_nothing(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws:
        with pytest.raises(KeyboardInterrupt):
            ws.send("interrupt")
            ws.recv()
        served.go.set()
        # The one that waited does so no more.
        ws.send("after")
        assert ws.recv() == "after"


@pytest.mark.parametrize("handler", [rawws.Handler()])
def test_what_cannot_be_raises_what_the_client_of_asyncio_raises(served: Served, handler: rawws.Handler) -> None:
    connect = rawws.sync.connect
    with pytest.raises(rawws.InvalidURI):
        connect("http://x")
    with pytest.raises(rawws.InvalidStatus) as caught:
        connect(f"{served.uri}nothing")
    assert caught.value.response.status_code == 404
    with pytest.raises(TypeError, match="callbacks need an event loop"):
        connect(served.uri, handler=handler)
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            connect(f"ws://{LOOPBACK}:{port}", open_timeout=0.1)
    with pytest.raises(ConnectionRefusedError):
        connect(f"ws://{LOOPBACK}:{port}")
    with connect(served.uri) as ws:
        with pytest.raises(TypeError):
            ws.send(7)  # type: ignore[arg-type]


# -- threads


def test_threads_have_connections_of_their_own_and_share_one_loop(served: Served) -> None:
    def work(name: int) -> list[str | bytes]:
        with rawws.sync.connect(served.uri) as ws:
            found = []
            for number in range(100):
                ws.send(f"{name} {number}")
                found.append(ws.recv())
            return found

    with ThreadPoolExecutor(8) as pool:
        for name, found in enumerate(pool.map(work, range(8))):
            assert found == [f"{name} {number}" for number in range(100)]
    assert [thread.name for thread in threading.enumerate()].count("rawws.sync") == 1


def test_threads_send_over_one_connection_each_in_its_order(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws:

        def work(name: int) -> None:
            for number in range(100):
                ws.send(json.dumps([name, number]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        found = [json.loads(ws.recv()) for _ in range(400)]
    for name in range(4):
        assert [number for each, number in found if each == name] == list(range(100))


def test_two_threads_that_receive_are_told(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws, ThreadPoolExecutor(1) as pool:
        ws.send("wait")
        waiting = pool.submit(ws.recv)

        def refused() -> bool:
            try:
                ws.recv(timeout=0)
            except rawws.LocalProtocolError:
                return True
            except TimeoutError:
                return False
            raise AssertionError

        eventually(refused)
        served.go.set()
        assert waiting.result(60) == "waited"


def test_in_its_own_thread_it_raises_in_the_place_of_waiting_for_ever(served: Served) -> None:
    with rawws.sync.connect(served.uri) as ws:
        found: Future[BaseException | None] = Future()

        def call() -> None:
            try:
                ws.recv()
            except RuntimeError as error:
                found.set_result(error)

        background().loop.call_soon_threadsafe(call)
        assert str(found.result(60)) == "rawws.sync was called in its own thread, allowed are all others"


def test_one_that_nobody_has_any_more_is_closed(served: Served) -> None:
    ws = rawws.sync.connect(served.uri)
    del ws
    gc.collect()
    eventually(lambda: served.ends == [(1000, "")])


# -- processes


@pytest.fixture(params=["uvloop", "asyncio"])
def begin(request: pytest.FixtureRequest) -> str:
    """How a program begins, for each loop."""
    return "" if request.param == "uvloop" else "import sys; sys.modules['uvloop'] = None\n"


def script(text: str, *arguments: str) -> str:
    """Run a program to its end: what it prints."""
    # Python 3.12 warns of all forks where there are threads.
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", text, *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    return out.decode()


def test_what_is_open_at_the_end_of_the_interpreter_is_closed_with_1001(served: Served, begin: str) -> None:
    text = """
import sys, threading, rawws.sync
ws = rawws.sync.connect(sys.argv[1])
waits = rawws.sync.connect(sys.argv[1])
begun = threading.Event()
def work():
    begun.set()
    for message in waits:
        print(message)
threading.Thread(target=work, daemon=True).start()
begun.wait()
ws.send("Hello")
print(ws.recv())
"""
    assert script(begin + text, served.uri) == "Hello\n"
    eventually(lambda: len(served.ends) == 2)
    assert served.ends == [(1001, "")] * 2


def test_a_connection_that_is_being_made_does_not_hold_the_end_of_the_interpreter(begin: str) -> None:
    text = """
import sys, socket, threading, rawws.sync
listener = socket.create_server(("127.0.0.1", 0))
uri = "ws://127.0.0.1:%d" % listener.getsockname()[1]
threading.Thread(target=rawws.sync.connect, args=(uri,), daemon=True).start()
peer, _ = listener.accept()
print(peer.recv(3))
peer.detach()
listener.detach()
"""
    assert script(begin + text) == "b'GET'\n"


def test_a_process_that_only_imports_it_starts_no_thread() -> None:
    assert script("import threading, rawws.sync; print(threading.active_count())") == "1\n"


def test_a_child_has_connections_of_its_own_and_leaves_those_of_its_parent_alone(served: Served, begin: str) -> None:
    text = """
import os, sys, rawws.sync
ws = rawws.sync.connect(sys.argv[1])
child = os.fork()
if not child:
    try:
        ws.send("not mine")
    except RuntimeError as error:
        print(error, flush=True)
    with rawws.sync.connect(sys.argv[1]) as own:
        own.send("child")
        print(own.recv(), flush=True)
    del ws
    sys.exit()
os.waitpid(child, 0)
ws.send("parent")
print(ws.recv())
ws.close()
"""
    assert script(begin + text, served.uri) == (
        "the connection belongs to the process that forked this one, or the interpreter ends\nchild\nparent\n"
    )
    eventually(lambda: len(served.ends) == 2)
    assert served.ends == [(1000, "")] * 2


def test_at_the_end_of_the_interpreter_nothing_is_begun(served: Served, begin: str) -> None:
    text = """
import atexit, sys
def late():
    try:
        ws.send("late")
    except RuntimeError as error:
        print(error)
atexit.register(late)
import rawws.sync
ws = rawws.sync.connect(sys.argv[1])
"""
    assert "the interpreter ends" in script(begin + text, served.uri)


# -- publish


def test_publish_returns_the_cursor_from_any_thread(served: Served) -> None:
    def work(number: int) -> str:
        return rawws.sync.publish(served.api, "news", f"{number}", key=KEY)

    with ThreadPoolExecutor(4) as pool:
        cursors = list(pool.map(work, range(20)))
    assert len(set(cursors)) == 20
    for data, published in (({"a": [1, None]}, '{"a":[1,null]}'), (b"\x00", b"\x00"), ("Grüße", "Grüße")):
        cursor = rawws.sync.publish(f"{served.api}/", "news", data, key=KEY)
        assert int(cursor.partition(":")[2]) > 20
        _, publications, _ = asyncio.run_coroutine_threadsafe(_history(served), _loop_of(served)).result(60)
        assert publications[-1].message == published
        assert publications[-1].is_json is isinstance(data, dict)
    rawws.sync.publish(served.api, "news", [1], key=KEY, event="move")
    _, publications, _ = asyncio.run_coroutine_threadsafe(_history(served), _loop_of(served)).result(60)
    assert (publications[-1].event, publications[-1].json()) == ("move", [1])


async def _history(served: Served) -> Any:
    return served.hub.recall("news", since="earliest")


def _loop_of(served: Served) -> asyncio.AbstractEventLoop:
    return served.hub._thread.loop


def test_what_cannot_be_published_raises_with_the_reason(served: Served, tmp_path: Path) -> None:
    publish = rawws.sync.publish
    with pytest.raises(
        rawws.InvalidStatus, match="'Unauthorized': needed is Authorization: Bearer, and a key"
    ) as caught:
        publish(served.api, "a", "x", key="wrong")
    assert (caught.value.status, caught.value.response.headers["www-authenticate"]) == (401, "Bearer")
    with pytest.raises(rawws.InvalidStatus, match="the topic is ''"):
        publish(served.api, "", "x", key=KEY)
    with pytest.raises(rawws.InvalidStatus, match="'Service Unavailable': later"):
        publish(f"http://{served.address}/plain", "a", "x", key=KEY)
    with pytest.raises(rawws.InvalidMessage, match="the answer has no cursor, so it is none of the API of a hub"):
        publish(f"http://{served.address}/strange", "a", "x", key=KEY)
    with pytest.raises(rawws.InvalidStatus):
        publish(served.api, "a", 3_000_000 * "x", key=KEY)
    with pytest.raises(TypeError):
        publish(served.api, "a", object(), key=KEY)
    with pytest.raises(ValueError, match="JSON"):
        publish(served.api, "a", float("nan"), key=KEY)
    with pytest.raises(rawws.LocalProtocolError):
        publish(served.api, "a", "x", key="two\nlines")
    with pytest.raises(ValueError, match="timeout is 0"):
        publish(served.api, "a", "x", key=KEY, timeout=0)
    for url in ("ws://x", "http://ann@x", f"{served.api}?x", f"{served.api}#x"):
        with pytest.raises(rawws.InvalidURI):
            publish(url, "a", "x", key=KEY)
    with pytest.raises(FileNotFoundError):
        publish(served.api, "a", "x", key=KEY, path=str(tmp_path / "no"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "the connection ended before the response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "ended"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "chunk"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "no cursor"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + 20_000 * b"[", "no cursor"),
        (b"SSH-2.0\r\n\r\n", "expected is HTTP/1.1"),
    ],
)
def test_an_answer_that_is_none_raises_invalid_message(answer: bytes, error: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass

        serving = pool.submit(serve)
        with pytest.raises(rawws.InvalidMessage, match=error):
            rawws.sync.publish(f"http://{LOOPBACK}:{listener.getsockname()[1]}", "a", "x", key=KEY)
        serving.result(60)


def test_a_redirect_is_no_way_for_a_key() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

        serving = pool.submit(serve)
        with pytest.raises(rawws.InvalidStatus, match="the server answered 'Elsewhere'"):
            rawws.sync.publish(f"http://{LOOPBACK}:{listener.getsockname()[1]}", "a", "x", key=KEY)
        serving.result(60)
