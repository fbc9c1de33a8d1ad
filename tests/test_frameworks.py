"""docs/use/frameworks.md tells the truth: its programs run on each server that it names, and do what it says."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests import processes
from tests.browser.chromium import browsing, eventually
from tests.processes import LOOPBACK, ROOT, Process, free_port

PAGE: Final = (ROOT / "docs" / "use" / "frameworks.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OURS: Final = "rawws.integrations.uvicorn:WebSocketProtocol"
PATIENCE: Final = ["--timeout-graceful-shutdown", "1"]
SERVERS: Final[dict[str, Callable[[str, int], list[str]]]] = {
    "rawws": lambda name, port: ["rawws", "serve", "--asgi", f"{name}:app", "--port", str(port)],
    "uvicorn": lambda name, port: ["uvicorn", f"{name}:app", "--port", str(port), *PATIENCE],
    "uvicorn with ours": lambda name, port: ["uvicorn", f"{name}:app", "--port", str(port), "--ws", OURS, *PATIENCE],
}
V1: Final = [Subprotocol("rawws.v1")]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(name: str, folder: Path, port: int) -> None:
    [text] = [text for found, text in BLOCKS if found == name]
    (folder / f"{name}.py").write_text(text.replace("8765", str(port)), encoding="utf-8")


@contextmanager
def running(server: str, name: str, folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a program: its HOST:PORT."""
    port = port or free_port()
    write(name, folder, port)
    command = [sys.executable, "-m", *SERVERS[server](name, port)]
    with Process(
        command, cwd=folder, listens=port, env={"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    ) as process:
        yield f"{LOOPBACK}:{port}"
        assert "Traceback" not in process.output, process.output


@contextmanager
def user(address: str, name: str) -> Iterator[httpx.Client]:
    """A client that is logged in."""
    with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
        assert client.post("/login", params={"name": name}).status_code in {200, 204}
        yield client


def cookie(client: httpx.Client) -> dict[str, str]:
    return {"Cookie": f"session={client.cookies['session']}"}


def heard(*people: ClientConnection) -> list[str | bytes]:
    return [person.recv(timeout=10) for person in people]


def data(lines: Iterator[str]) -> str:
    """Return the data of the next event."""
    return next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")


def test_every_program_is_run_here() -> None:
    tested = {"app", "lifespan", "board", "project", "consumers", "shop", "worker", "test_app"}
    assert {name for name, _ in BLOCKS} == tested
    assert len(re.findall("^```python", PAGE, re.MULTILINE)) == len(BLOCKS)


def test_the_program_of_fastapi_has_forty_lines() -> None:
    [text] = [text for name, text in BLOCKS if name == "app"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def test_fastapi(server: str, tmp_path: Path) -> None:
    with running(server, "app", tmp_path) as address, user(address, "ada") as ada, user(address, "admin") as admin:
        with pytest.raises(InvalidStatus, match=r"HTTP 401"):
            connect(f"ws://{address}/rooms/a")
        assert httpx.get(f"http://{address}/notifications").status_code == 401
        room = f"ws://{address}/rooms/a"
        with (
            connect(room, additional_headers=cookie(ada)) as one,
            connect(room, additional_headers=cookie(admin)) as two,
        ):
            one.send("Hello")
            assert heard(one, two) == ["ada: Hello"] * 2
            assert ada.get("/rooms/a").json() == ["ada", "admin"]
            with connect(room, additional_headers=cookie(ada)) as later:
                assert heard(later) == ["ada: Hello"]
                assert ada.get("/rooms/a").json() == ["ada", "admin"]
        while ada.get("/rooms/a").json():
            pass
        assert ada.post("/broadcast", params={"text": "x"}).status_code == 403
        with ada.stream("GET", "/notifications") as feed:
            assert feed.headers["content-type"] == "text/event-stream"
            lines = feed.iter_lines()
            begun = next(line for line in lines if line.startswith("id: "))
            assert admin.post("/broadcast", params={"text": "one"}).status_code == 200
            assert data(lines) == "one"
        assert admin.post("/broadcast", params={"text": "two"}).status_code == 200
        # What came since is not lost, and a browser whose id is nonsense is served all the same.
        with ada.stream("GET", "/notifications", headers={"Last-Event-ID": begun.removeprefix("id: ")}) as feed:
            lines = feed.iter_lines()
            assert [data(lines), data(lines)] == ["one", "two"]
        with ada.stream("GET", "/notifications", headers={"Last-Event-ID": "nonsense"}) as feed:
            assert feed.status_code == 200


def test_fastapi_with_a_lifespan(server: str, tmp_path: Path) -> None:
    with running(server, "lifespan", tmp_path) as address:
        cursor = httpx.post(f"http://{address}/broadcast", params={"text": "x"}).json()
        assert cursor.endswith(":1")


def test_two_workers_have_one_hub(tmp_path: Path) -> None:
    port = free_port()
    write("lifespan", tmp_path, port)
    command = ["rawws", "serve", "--asgi", "lifespan:app", "--port", str(port), "--workers", "2"]
    with Process([sys.executable, "-m", *command], cwd=tmp_path, listens=port) as process:
        process.wait_for(lambda output: "2 workers" in output, "both serve")

        def have_one() -> bool:
            """Tell whether 20 publications, by whichever worker, have one place after the other."""
            url = f"http://{LOOPBACK}:{port}/broadcast"
            cursors = [httpx.post(url, params={"text": "x"}, timeout=10).json().split(":") for _ in range(20)]
            first = int(cursors[0][1])
            return cursors == [[cursors[0][0], str(first + number)] for number in range(20)]

        # A worker that has not reached the broker yet gives places of its own.
        processes.eventually(have_one)
        assert "Traceback" not in process.output


def test_starlette_with_rawws_js_in_a_browser(server: str, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack, browsing() as browser:
        address = stack.enter_context(running(server, "board", tmp_path, port))
        context = browser.new_context()
        ada, stranger = context.new_page(), browser.new_page()
        for page in (ada, stranger):
            page.goto(f"http://{address}/")
            eventually(page, "window.say !== undefined")
        assert "refused" in str(stranger.evaluate("say('forged').catch(String)"))
        # The connection that there is was opened by nobody in particular.
        ada.evaluate("fetch('/login?name=ada', {method: 'POST'})")
        ada.reload()
        eventually(ada, "window.say !== undefined")
        assert ada.evaluate("say('Hello')")
        for page in (ada, stranger):
            eventually(page, "document.querySelectorAll('li').length === 1")
            assert page.inner_text("li") == "Hello"
        with httpx.stream("GET", f"http://{address}/feed", timeout=10) as feed:
            assert data(feed.iter_lines()) == "Hello"
        # The pages come back to a server that is started again, and are who they were.
        stack.close()
        with running(server, "board", tmp_path, port):
            assert "refused" in str(stranger.evaluate("say('forged').catch(String)"))
            assert ada.evaluate("say('Again')")
            for page in (ada, stranger):
                eventually(page, "document.querySelectorAll('li').length === 2")
                assert page.inner_text("li:last-child") == "Again"


def test_django(server: str, tmp_path: Path) -> None:
    with running(server, "project", tmp_path) as address:
        assert httpx.post(f"http://{address}/announce", content="early").text == "0 have it"
        with connect(f"ws://{address}/topics/", subprotocols=V1) as ws:
            ws.send(json.dumps({"id": 1, "subscribe": "news", "since": "earliest"}))
            assert "cursor" in json.loads(ws.recv(timeout=10))
            assert json.loads(ws.recv(timeout=10))["data"] == "early"
            assert httpx.post(f"http://{address}/announce", content="Hello").text == "1 have it"
            assert json.loads(ws.recv(timeout=10))["data"] == "Hello"
            ws.send(json.dumps({"id": 2, "publish": "news", "data": "forged"}))
            assert json.loads(ws.recv(timeout=10)) == {"id": 2, "error": "refused"}
        assert httpx.get(f"http://{address}/nowhere").status_code == 404
        answer: Any = httpx.get(f"http://{address}/topics/", params={"topic": "news", "since": "earliest"}).json()
        assert [each["data"] for each in answer["publications"]] == ["early", "Hello"]


def test_django_channels(server: str, tmp_path: Path) -> None:
    with running(server, "consumers", tmp_path) as address:
        with connect(f"ws://{address}/rooms/a") as ada, connect(f"ws://{address}/rooms/a") as grace:
            ada.send("Hello")
            assert heard(ada, grace) == ["Hello"] * 2
            grace.send(b"\x00")
            assert heard(ada, grace) == [b"\x00"] * 2
        with connect(f"ws://{address}/rooms/a") as later:
            assert heard(later, later) == ["Hello", b"\x00"]


def test_flask_and_its_workers(tmp_path: Path) -> None:
    port = free_port()
    for name in ("shop", "worker"):
        write(name, tmp_path, port)
    with Process([sys.executable, "shop.py"], cwd=tmp_path, listens=port) as process:
        with connect(f"ws://{LOOPBACK}:{port}/topics", subprotocols=V1) as ws:
            ws.send(json.dumps({"id": 1, "subscribe": "orders"}))
            assert "cursor" in json.loads(ws.recv(timeout=10))
            assert httpx.post(f"http://{LOOPBACK}:{port}/orders", data={"item": "tea"}).status_code == 202
            assert json.loads(ws.recv(timeout=10))["data"] == "tea is packed"
            with Process([sys.executable, "worker.py"], cwd=tmp_path) as worker:
                assert worker.result(20) == "['cursor']\n"
            assert json.loads(ws.recv(timeout=10))["data"] == "a parcel left"
        forged = httpx.post(f"http://{LOOPBACK}:{port}/topics", json={"publish": "orders", "data": "forged"})
        assert forged.status_code == 403
        assert httpx.get(f"http://{LOOPBACK}:{port}/nowhere").status_code == 404
        assert "Traceback" not in process.output


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    for name in ("app", "test_app"):
        write(name, tmp_path, 0)
    with Process(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"], cwd=tmp_path
    ) as process:
        assert "1 passed" in process.result(20)
