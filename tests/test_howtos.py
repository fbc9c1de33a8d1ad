"""The how-to pages tell the truth: their programs do what the pages say, the other files name what there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import jwt
import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from rawws.cli import main as cli
from tests.browser.chromium import browsing, eventually
from tests.processes import LOOPBACK, ROOT, Process, find_program, free_port

DOCS: Final = ROOT / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def program(page: str, name: str) -> str:
    [found] = [block for block in blocks(page) if block.startswith(f"# {name}\n")]
    return found


@contextmanager
def running(page: str, name: str, folder: Path) -> Iterator[str]:
    """Run a program that serves; give where it does, without the scheme."""
    port = free_port()
    (folder / name).write_text(program(page, name).replace("8765", str(port)), encoding="utf-8")
    with Process([sys.executable, "-W", "error", name], cwd=folder, listens=port) as process:
        yield f"{LOOPBACK}:{port}"
        assert "Traceback" not in process.output


def printed(page: str, name: str, folder: Path) -> str:
    (folder / name).write_text(program(page, name), encoding="utf-8")
    command = [sys.executable, "-W", "error", name]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    return done.stdout


def heard(*people: ClientConnection) -> list[str | bytes]:
    return [person.recv(timeout=60) for person in people]


def lines(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip()])


# tutorial.md


def test_the_chat_of_thirty_lines_is_one_and_its_page_works(tmp_path: Path) -> None:
    assert lines(program("begin/tutorial.md", "chat.py")) <= 31  # with its name
    with running("begin/tutorial.md", "chat.py", tmp_path) as host, browsing() as browser:
        ada, grace = browser.new_page(), browser.new_page()
        for page in (ada, grace):
            page.goto(f"http://{host}/")
            eventually(page, "ws.readyState === 1")
        ada.fill("input", "<b>Do you hear me?</b>")
        ada.click("button")
        for page in (ada, grace):
            eventually(page, "document.querySelectorAll('li').length === 1")
            assert page.inner_text("li") == "<b>Do you hear me?</b>"
        assert ada.input_value("input") == ""


def test_rooms_are_apart_and_remember(tmp_path: Path) -> None:
    with running("begin/tutorial.md", "rooms.py", tmp_path) as host:
        with connect(f"ws://{host}/rooms/a") as ada, connect(f"ws://{host}/rooms/b") as grace:
            ada.send("in a")
            assert heard(ada) == ["in a"]
            grace.send("in b")
            assert heard(grace) == ["in b"]
        with connect(f"ws://{host}/rooms/a") as later:
            assert heard(later) == ["in a"]


# access.md


def test_a_cookie_decides_who_it_is(tmp_path: Path) -> None:
    with running("use/access.md", "cookie.py", tmp_path) as host:
        with connect(f"ws://{host}/", additional_headers={"Cookie": "theme=dark; session=3a8f"}) as ws:
            ws.send("Hello")
            assert heard(ws) == ["ada: Hello"]
        for cookie in ("session=", "session=3a8", "theme=3a8f"):
            with pytest.raises(InvalidStatus, match="401"):
                connect(f"ws://{host}/", additional_headers={"Cookie": cookie})
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://{host}/")


def test_a_ticket_is_good_once(tmp_path: Path) -> None:
    with running("use/access.md", "ticket.py", tmp_path) as host:
        assert httpx.post(f"http://{host}/ticket", timeout=60).status_code == 401
        ticket = httpx.post(f"http://{host}/ticket", cookies={"session": "3a8f"}, timeout=60).text
        with connect(f"ws://{host}/hello") as ws:
            ws.send(ticket)
            ws.send("Hello")
            assert heard(ws) == ["ada: Hello"]
        for wrong in (ticket, "", "x"):
            with connect(f"ws://{host}/hello") as ws:
                ws.send(wrong)
                with pytest.raises(ConnectionClosed, match="1008"):
                    ws.recv(timeout=60)


def test_a_json_web_token_says_who_it_is(tmp_path: Path) -> None:
    secret = "of the identity provider and this server, 32 bytes or more"
    claims = {"sub": "ada", "name": "Ada", "aud": "chat", "exp": time.time() + 600}
    with running("use/access.md", "tokens.py", tmp_path) as host:
        token = jwt.encode(claims, secret, "HS256")
        with connect(f"ws://{host}/?token={token}", subprotocols=[Subprotocol("rawws.v1")]) as ws:
            ws.send('{"id": 1, "subscribe": "user/ada", "join": null, "watch": true}')
            assert json.loads(str(heard(ws)[0]))["members"][0]["info"] == {"name": "Ada"}
            ws.send('{"id": 2, "subscribe": "user/bob"}')
            assert json.loads(str(heard(ws)[0])) == {"id": 2, "error": "refused"}
        for wrong in (jwt.encode(claims, "x" * 32, "HS256"), jwt.encode(claims | {"aud": "x"}, secret, "HS256")):
            with connect(f"ws://{host}/?token={wrong}", subprotocols=[Subprotocol("rawws.v1")]) as ws:
                with pytest.raises(ConnectionClosed, match="4401"):
                    ws.recv(timeout=60)


# embedding.md, reading.md


def test_the_three_ways_are_under_twenty_lines_each() -> None:
    found = blocks("begin/embedding.md")
    assert len(found) == 3
    assert max(map(lines, found)) < 20


def test_what_is_spoken_is_listened_to(tmp_path: Path) -> None:
    with running("begin/embedding.md", "server.py", tmp_path) as host:
        assert httpx.get(f"http://{host}/healthz", timeout=60).text == "ok\n"
        with httpx.stream("GET", f"http://{host}/listen", timeout=60) as answer, connect(f"ws://{host}/speak") as ws:
            ws.send("Hello")
            assert "data: Hello" in next(text for text in answer.iter_lines() if text.startswith("data"))


def test_the_core_and_the_instrument_print_what_they_should(tmp_path: Path) -> None:
    assert printed("begin/embedding.md", "core.py", tmp_path) == "Hello\nClose(code=1000, reason='bye')\nCLOSING\n"
    assert printed("begin/embedding.md", "instrument.py", tmp_path) == "Hello 0.0\n"


def test_the_frame_of_the_shell_is_the_one_that_is_explained(tmp_path: Path) -> None:
    frame = printed("understand/reading.md", "shell.py", tmp_path).strip()
    assert f"The answer is `{frame}`" in (DOCS / "understand/reading.md").read_text(encoding="utf-8")


def test_the_path_leads_through_the_whole_protocol() -> None:
    text = (DOCS / "understand/reading.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(\.\./\.\./(rawws/protocol/\w+\.py)\)", text))
    assert named == {str(path.relative_to(ROOT)) for path in ROOT.glob("rawws/protocol/[a-z]*.py")}
    assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) == 9


# socketio.md


def test_events_and_rooms_work_without_socket_io(tmp_path: Path) -> None:
    with running("move/socketio.md", "rooms.py", tmp_path) as host:
        with connect(f"ws://{host}/") as ada, connect(f"ws://{host}/") as grace:
            for person in (ada, grace):
                person.send('{"event": "join", "room": "a"}')
            # What is answered was joined.
            for person in (ada, grace):
                person.send('{"event": "leave"}')
                [answer] = heard(person)
                assert json.loads(answer)["event"] == "error"
            ada.send('{"event": "say", "room": "a", "text": "Hello"}')
            assert [json.loads(text) for text in heard(ada, grace)] == [{"event": "said", "text": "Hello"}] * 2


# deploying.md


def test_the_service_and_the_container_start_what_there_is() -> None:
    [unit, listening], [container] = blocks("run/deploying.md", "ini"), blocks("run/deploying.md", "dockerfile")
    [started] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    [command] = re.findall(r"^CMD (\[.*\])$", container, re.MULTILINE)
    [handed] = [words for words in blocks("run/deploying.md", "text") if words.startswith("ExecStart=")]
    assert "ListenStream=" in listening
    for words in (shlex.split(started), shlex.split(handed.removeprefix("ExecStart=")), json.loads(command)):
        assert Path(words[0]).name == "python"
        assert words[1:3] == ["-m", "rawws"]
        assert cli.parser().parse_args(words[3:]).target == ("echo", "echo")
    assert "COPY echo.py ." in container
    assert program("run/deploying.md", "echo.py")


# api.md


def test_the_api_of_the_page_publishes_with_curl_and_is_closed_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "an-example-of-a-key"
    monkeypatch.setenv("RAWWS_KEY", f"another-key-of-some-length {key}")
    with running("use/api.md", "news.py", tmp_path) as host:
        shell = "".join(blocks("use/api.md", "sh"))
        command = next(line for line in shell.splitlines() if line.startswith("curl "))
        words = shlex.split(command.replace("127.0.0.1:8765", host))
        find_program(words[0], "apt-get install curl")
        done = subprocess.run([*words, "--silent"], capture_output=True, text=True, check=True)
        assert list(json.loads(done.stdout)) == ["cursor"]
        known = {"Authorization": f"Bearer {key}"}
        found = httpx.get(f"http://{host}/api/history?topic=news", headers=known, timeout=60).json()
        assert [each["data"] for each in found["publications"]] == ["Hello"]
        assert httpx.get(f"http://{host}/api/history?topic=news", timeout=60).status_code == 401
