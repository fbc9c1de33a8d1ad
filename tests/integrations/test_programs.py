"""Programs of the ASGI frameworks, as real processes on our ASGI server and in uvicorn with our class for `--ws`."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.integrations.programs import kernel_app
from tests.interop.parts import entries, node_command
from tests.processes import LOOPBACK, Process, eventually, find_program, free_port

WS = "rawws.integrations.uvicorn:WebSocketProtocol"
SERVERS: dict[str, Callable[[str, int], list[str]]] = {
    "rawws": lambda target, port: ["rawws", "serve", "--asgi", target, "--port", str(port)],
    "uvicorn": lambda target, port: ["uvicorn", target, "--ws", WS, "--port", str(port)],
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def running(server: str, program: str, **env: str) -> Iterator[Process]:
    port = free_port()
    command = SERVERS[server](f"tests.integrations.programs.{program}:app", port)
    with Process([sys.executable, "-m", *command], listens=port, env=env) as process:
        yield process
    assert "Traceback" not in process.output, process.output


def address(process: Process, path: str = "") -> str:
    return f"{LOOPBACK}:{process.port}{path}"


def get(process: Process, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"http://{address(process, path)}", timeout=60, **options)


def post(process: Process, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"http://{address(process, path)}", timeout=60, **options)


def receive(ws: ClientConnection) -> Any:
    return json.loads(ws.recv(timeout=60))


def end_in_peace(process: Process) -> None:
    """Have it end by itself, however long that takes."""
    process.send_signal(signal.SIGTERM)
    eventually(lambda: process.poll() is not None)


def end(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=60)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def refused(url: str, **options: Any) -> tuple[int, Any, bytes]:
    with pytest.raises(InvalidStatus) as caught, connect(url, **options):
        pass
    response = caught.value.response
    return response.status_code, response.headers, bytes(response.body or b"")


def test_starlette(server: str) -> None:
    with running(server, "starlette_app") as process:
        with connect(f"ws://{address(process, '/rooms/a')}", subprotocols=[Subprotocol("json")]) as ws:
            assert ws.response is not None
            assert (ws.subprotocol, ws.response.headers["X-Room"]) == ("json", "a")
            ws.send('{"name": "Ada"}')
            assert receive(ws) == {"hello": "Ada", "room": "a"}
        status, headers, body = refused(f"ws://{address(process, '/private')}")
        assert (status, headers["WWW-Authenticate"], json.loads(body)) == (401, "Basic", {"who": "are you?"})
        assert refused(f"ws://{address(process, '/nowhere')}")[0] == 403

        pieces = [bytes([number]) * 50000 for number in range(20)]
        expected = hashlib.sha256(b"".join(pieces)).hexdigest()
        assert post(process, "/digest", content=iter(pieces)).text == expected
        assert post(process, "/digest", content=b"".join(pieces)).text == expected
        with httpx.stream("GET", f"http://{address(process, '/ticks')}", timeout=60) as stream:
            lines = stream.iter_lines()
            assert [next(lines) for _ in range(5)] == ["data: 0", "", "data: 1", "", "data: 2"]
        # The generator, which sleeps, is told of the end as soon as there is one.
        while get(process, "/ended").json() != ["ticks"]:
            pass
        end_in_peace(process)
    assert "the lifespan ended" in process.output


def test_fastapi(server: str) -> None:
    with running(server, "fastapi_app") as process:
        answer = post(process, "/items", json={"name": "a", "price": 1.5})
        assert (answer.status_code, answer.json()) == (201, {"name": "a", "price": 1.5})
        assert post(process, "/items", json={"name": "a"}).status_code == 422
        assert refused(f"ws://{address(process, '/chat')}")[0] == 403
        with (
            connect(f"ws://{address(process, '/chat?token=ada')}") as ada,
            connect(f"ws://{address(process, '/chat?token=grace')}") as grace,
        ):
            # The second is in the room when it hears itself.
            grace.send("hello")
            assert [ada.recv(timeout=60), grace.recv(timeout=60)] == 2 * ["grace: hello"]
            ada.send("Grüße")
            assert [ada.recv(timeout=60), grace.recv(timeout=60)] == 2 * ["ada: Grüße"]
            grace.close(4001)
            while "grace left with 4001" not in get(process, "/log").json():
                pass
        assert get(process, "/log").json()[0] == "a"
        with connect(f"ws://{address(process, '/fails')}") as ws:
            assert end(ws) == (4000, "no more")


def test_django_channels(server: str) -> None:
    with running(server, "channels_app") as process:
        origin = Origin(f"http://{address(process)}")
        answer = post(process, "/upload", content=b"x" * 300000)
        assert answer.text == f"POST 300000 {address(process)}"
        assert get(process, "/nowhere").status_code == 404
        assert refused(f"ws://{address(process, '/chat/ada')}", origin=Origin("http://elsewhere.example"))[0] == 403
        assert refused(f"ws://{address(process, '/chat/nobody')}", origin=origin)[0] == 403
        with (
            connect(f"ws://{address(process, '/chat/ada')}", origin=origin) as ada,
            connect(f"ws://{address(process, '/chat/grace')}", origin=origin) as grace,
        ):
            for ws, name in ((ada, "ada"), (grace, "grace")):
                ws.send('{"text": "Hallo"}')
                assert [receive(ada), receive(grace)] == 2 * [{"text": f"{name}: Hallo"}]


def test_a_subscription_of_graphql(server: str) -> None:
    with running(server, "graphql_app") as process:
        answer = post(process, "/graphql", json={"query": '{ hello(name: "Ada") }'})
        assert answer.json() == {"data": {"hello": "Hello Ada"}}
        subprotocols = [Subprotocol("graphql-transport-ws"), Subprotocol("graphql-ws")]
        with connect(f"ws://{address(process, '/graphql')}", subprotocols=subprotocols) as ws:
            assert ws.subprotocol == "graphql-transport-ws"
            ws.send('{"type": "connection_init"}')
            assert receive(ws)["type"] == "connection_ack"
            payload = {"query": "subscription { count(target: 3) }"}
            ws.send(json.dumps({"id": "one", "type": "subscribe", "payload": payload}))
            for number in range(3):
                assert receive(ws) == {"id": "one", "type": "next", "payload": {"data": {"count": number}}}
            assert receive(ws) == {"id": "one", "type": "complete"}
            ws.send('{"type": "ping"}')
            assert receive(ws)["type"] == "pong"
            ws.send(json.dumps({"id": "two", "type": "subscribe"}))
            assert end(ws)[0] == 4400


def test_messages_of_a_jupyter_kernel(server: str) -> None:
    subprotocols = [Subprotocol(kernel_app.SUBPROTOCOL)]
    with (
        running(server, "kernel_app") as process,
        connect(f"ws://{address(process, '/api/kernels/1/channels')}", subprotocols=subprotocols) as ws,
    ):
        assert ws.subprotocol == kernel_app.SUBPROTOCOL
        buffers = [bytes(range(256)) * 3000, b"", b"\x00"]
        for number in range(20):
            parts = [{"msg_id": str(number)}, {}, {"of": number}, {"code": "x" * number}]
            ws.send(kernel_app.pack("shell", parts, buffers))
            came = []
            for _ in range(3):
                message = ws.recv(timeout=60)
                assert isinstance(message, bytes)
                came.append(kernel_app.unpack(message))
            assert [content["execution_state"] for _, (_, _, _, content), _ in came[::2]] == ["busy", "idle"]
            channel, (header, parent, metadata, content), back = came[1]
            assert (channel, header["msg_type"]) == ("shell", "execute_reply")
            assert (parent, metadata, content) == (parts[0], parts[2], parts[3])
            assert back == [buffer[::-1] for buffer in buffers]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = find_program("redis-server", "apt-get install redis-server")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
    with Process([program, *options], listens=port, cwd=Path(folder)):
        yield f"redis://{LOOPBACK}:{port}"


@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
def test_socket_io_on_two_servers_over_redis(server: str, redis: str, transports: str) -> None:
    with (
        running(server, "socketio_app", REDIS_URL=redis) as first,
        running(server, "socketio_app", REDIS_URL=redis) as second,
    ):
        command = node_command("client_socketio.mjs")
        with Process([*command, address(first), address(second), transports]) as client:
            (report,) = entries(client.result(60), "report")
    assert report == {
        "transports": ["websocket"] * 3,
        "joined": ["joined den"] * 2,
        "lengths": [3, 5, 100000, 4],
        "heard": [3, 5, 100000, 4],
        "last": [0, 1, 254, 255],
        "asked": ["Do you hear me? Yes."],
        "left": "left den",
        "stranger": [],
    }


def test_workers_share_a_port_and_each_has_its_lifespan() -> None:
    port = free_port()
    command = SERVERS["rawws"]("tests.integrations.programs.starlette_app:app", port)
    with Process([sys.executable, "-m", *command, "--workers", "2"], listens=port) as process:
        process.wait_for(lambda output: "2 workers" in output, "both serve")
        for _ in range(8):
            assert post(process, "/digest", content=b"").text == hashlib.sha256(b"").hexdigest()
        end_in_peace(process)
    assert process.output.count("the lifespan ended") == 2, process.output


def test_offsets_of_a_kernel_message_are_where_its_parts_are() -> None:
    message = kernel_app.pack("shell", [{}, {}, {}, {}], [b"ab", b""])
    count = int.from_bytes(message[:8], "little")
    offsets = [int.from_bytes(message[8 * n + 8 : 8 * n + 16], "little") for n in range(count)]
    assert [message[start:stop] for start, stop in pairwise(offsets)] == [b"shell", *4 * [b"{}"], b"ab", b""]
