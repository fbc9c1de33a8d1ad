"""The programs of docs/use/http.md run, and do what the page says."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from websockets.sync.client import connect

from tests.processes import LOOPBACK, ROOT, Process, free_port
from tests.test_readme import PORT, blocks

PROGRAMS = {block.name: block for block in blocks(ROOT / "docs" / "use" / "http.md") if block.language == "python"}


@contextmanager
def running(name: str, folder: Path) -> Iterator[int]:
    """Run a program of the page, and give its port."""
    port = free_port()
    (folder / name).write_text(PROGRAMS[name].text.replace(PORT, str(port)), encoding="utf-8")
    with Process([sys.executable, "-W", "error", name], cwd=folder, listens=port) as process:
        yield port
        os.kill(process.pid, signal.SIGINT)
        assert "Traceback" not in process.result(60)


@contextmanager
def asked(port: int, method: str, target: str, body: str = "", **headers: str) -> Iterator[HTTPResponse]:
    """Give the response to a request, and close its connection at the end."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=60)) as connection:
        connection.request(method, target, body.encode() or None, headers)
        with connection.getresponse() as response:
            yield response


def ask(port: int, method: str, target: str, body: str = "") -> tuple[int, str]:
    """Return the status and the text of a response."""
    with asked(port, method, target, body) as response:
        return response.status, response.read().decode()


def events(response: HTTPResponse, count: int) -> list[str]:
    """Return so many events of a stream."""
    found: list[str] = []
    while len(found) < count:
        lines = iter(lambda: response.readline().decode().rstrip("\n"), "")
        found.append("\n".join(lines))
    return found


def test_these_are_all_programs_of_the_page() -> None:
    assert sorted(PROGRAMS) == ["app.py", "live.py", "polls.py", "upload.py"]


def test_the_routes_answer(tmp_path: Path) -> None:
    with running("app.py", tmp_path) as port:
        with connect(f"ws://{LOOPBACK}:{port}/chat/blue") as ws:
            ws.send("hi")
            assert ws.recv(timeout=60) == "blue: hi"
        with asked(port, "GET", "/") as page:
            assert (page.read(), page.headers["Content-Type"]) == (b"<h1>Hello</h1>", "text/html; charset=utf-8")
        assert ask(port, "GET", "/users/ada%20l?tag=a&tag=b") == (200, '{"name":"ada l","tags":["a","b"]}')
        assert ask(port, "POST", "/users", '{"name": "ada"}') == (201, '{"added":{"name":"ada"}}')
        assert ask(port, "POST", "/users", "{")[0] == 400
        assert ask(port, "PUT", "/")[0] == 405
        assert ask(port, "GET", "/none")[0] == 404


def test_the_stream_sends_what_is_published_and_goes_on_where_a_client_was(tmp_path: Path) -> None:
    with running("live.py", tmp_path) as port:
        with asked(port, "GET", "/news") as news:
            assert events(news, 1) == ["retry: 2000"]
            for text in ("one", "two\nlines"):
                assert ask(port, "POST", "/news", text) == (204, "")
            assert events(news, 2) == ["id: 1\ndata: one", "id: 2\ndata: two\ndata: lines"]
        with asked(port, "GET", "/news", **{"Last-Event-ID": "1"}) as news:
            assert events(news, 1) == ["retry: 2000\nid: 2\ndata: two\ndata: lines"]
        assert ask(port, "GET", "/count") == (200, "data: 0\n\ndata: 1\n\ndata: 2\n\n")


def test_a_poll_gets_what_is_published_between_two_and_while_one_is_held(tmp_path: Path) -> None:
    with running("polls.py", tmp_path) as port:
        assert ask(port, "POST", "/messages", "one") == (204, "")
        assert ask(port, "GET", "/messages?at=0") == (200, '{"at":1,"messages":["one"]}')
        with closing(HTTPConnection(LOOPBACK, port, timeout=60)) as held:
            held.request("GET", "/messages?at=1")
            assert ask(port, "POST", "/messages", "two") == (204, "")
            with held.getresponse() as response:
                assert json.load(response) == {"at": 2, "messages": ["two"]}


def test_who_has_no_key_is_refused_before_the_body_comes(tmp_path: Path) -> None:
    with running("upload.py", tmp_path) as port:
        good = {"Authorization": "Bearer an-example-of-a-key"}
        with asked(port, "POST", "/upload", "x" * 1000, **good) as response:
            assert (response.status, response.read()) == (200, b"1000 bytes")
        with closing(HTTPConnection(LOOPBACK, port, timeout=60)) as half:
            half.putrequest("POST", "/upload")
            half.putheader("Content-Length", "1000")
            half.endheaders()
            with half.getresponse() as response:
                assert (response.status, response.read()) == (401, b"needed is a key")
