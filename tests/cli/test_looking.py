"""`rawws status`, `top`, `topics`, `who` and `kick`, as people and scripts use them: processes, pipes, a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from rawws.cli.looking import size
from tests.admin.looks import KEY
from tests.admin.test_workers import admin_of, dial, served
from tests.processes import LOOPBACK, ROOT, Process, free_port


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with served(tmp_path_factory.mktemp("looking"), "--admin", f"{LOOPBACK}:0", workers=1) as process:
        yield process


@pytest.fixture
def url(process: Process) -> str:
    return admin_of(process)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def environment(**more: str) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("RAWWS_ADMIN")}
    return {**rest, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "rawws", *arguments]
    done = subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def shown(*arguments: str, **env: str) -> str:
    status, out, err = run(*arguments, **env)
    assert (status, err) == (0, "")
    return out


def subscribe(process: Process, stack: ExitStack, topic: str, who: str) -> ClientConnection:
    ws = stack.enter_context(dial(process, "rawws.v1"))
    ws.send(json.dumps({"id": 1, "subscribe": topic, "join": {"name": who}}))
    assert json.loads(ws.recv(timeout=60))["id"] == 1
    return ws


def test_status_shows_what_there_is(process: Process, url: str, stack: ExitStack) -> None:
    subscribe(process, stack, "news", "Ada")
    lines = shown("status", RAWWS_ADMIN=url).splitlines()
    assert lines[0] == "1 WebSockets, 0 event streams, 0 long polls, 1 topics, 1 subscriptions"
    assert re.fullmatch(r"a second: \S+ opened, .* in, .* out", lines[1])
    assert lines[2] == "slow: 0 now, 0 closed so far, 0 publications wait"
    assert lines[4].split() == ["worker", "process", "state", "connections", "streams", "polls", "lag"]
    assert lines[5].split()[:4] == ["0", str(process.pid), "serving", "1"]
    assert json.loads(shown("status", "--json", "--url", url.removeprefix("http://")))["connections"] == 1


def test_topics_and_who_is_there(process: Process, url: str, stack: ExitStack) -> None:
    assert shown("topics", "--url", url).splitlines()[0] in {"no topics", "subscribers  present  held  topic"}
    subscribe(process, stack, "a topic", "Ada\u202e")
    subscribe(process, stack, "a topic", "Bob")
    subscribe(process, stack, "another", "Eve")
    out = shown("topics", "--url", url, "--limit", "1")
    # Those of other tests are remembered, too.
    assert re.fullmatch(
        r"subscribers  present  held  topic\n2            2        0     a topic\n\.\.\. and \d more\n", out
    )
    who = shown("who", "a topic", "--url", url).splitlines()
    assert who[0].split() == ["id", "user", "said", "by", "info"]
    assert who[-1] == "2 present, 2 subscribed"
    assert [line.split(maxsplit=3)[3] for line in who[1:3]] == ['{"name": "Ada\\u202e"}', '{"name": "Bob"}']
    assert shown("who", "nothing", "--url", url) == "0 present, 0 subscribed\n"
    found = json.loads(shown("who", "another", "--json", "--url", url))
    assert [each["info"] for each in found["present"]] == [{"name": "Eve"}]


def test_a_connection_is_found_by_top_and_kicked(process: Process, url: str, stack: ExitStack) -> None:
    ws = subscribe(process, stack, "news", "Ada")
    lines = shown("top", "--once", "--url", url, "--sort", "age").splitlines()
    names = lines[-2].split()
    assert names == ["waiting", "in", "out", "topics", "ping", "age", "worker", "kind", "from", "user", "path", "id"]
    ident = lines[-1].split()[-1]
    assert shown("top", "--once", "--url", url, "--user", "Ada").splitlines()[-1] == "no connections"
    out = shown("kick", ident, "--code", "4003", "--reason", "go home", "--url", url)
    assert out == f"{ident} is closed\n"
    with pytest.raises(ConnectionClosed, match=r"4003 .*go home"):
        ws.recv(timeout=60)
    status, out, err = run("kick", ident, "--url", url)
    assert (status, out) == (1, "")
    assert err == f"rawws: {url} answered 404: there is no connection '{ident}'\n"
    assert shown("top", "--once", "--url", url).splitlines()[-1] == "no connections"


def test_top_is_plain_in_a_pipe_and_goes_on_until_it_is_ended(url: str) -> None:
    command = [sys.executable, "-m", "rawws", "top", "--interval", "0.1", "--json"]
    with subprocess.Popen(command, env=environment(RAWWS_ADMIN=url), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert all(each["listed"]["connections"] == [] for each in found)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    # Who reads has enough.
    with subprocess.Popen([*command[:-1]], env=environment(RAWWS_ADMIN=url), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert b"\x1b" not in first
        assert b"WebSockets" in first
        process.stdout.close()
        assert process.wait(60) == 0


def test_top_redraws_on_a_terminal(url: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rawws", "top", "--interval", "0.1", "--url", url]
    env = environment(COLUMNS="40", LINES="6")
    with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        came = b""
        while came.count(b"\x1b[H") < 3:
            came += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while os.read(ours, 65536):
                pass
        assert process.wait(60) == 0
    os.close(ours)
    screen = came.split(b"\x1b[H")[1]
    assert screen.endswith(b"\x1b[J\r\n")
    lines = screen.removesuffix(b"\x1b[J\r\n").split(b"\r\n")
    assert len(lines) == 5
    assert all(len(line.removesuffix(b"\x1b[K")) <= 39 for line in lines)


def test_the_key_comes_from_the_environment(tmp_path: Path) -> None:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0", workers=1, env={"RAWWS_ADMIN_KEY": KEY}) as process:
        url = admin_of(process)
        assert run("status", RAWWS_ADMIN=url) == (
            1,
            "",
            f"rawws: {url} needs a key: RAWWS_ADMIN_KEY has it, or --key\n",
        )
        assert f"{url} needs another key" in run("status", "--key", "x", RAWWS_ADMIN=url)[2]
        assert "1 WebSockets" in shown("status", RAWWS_ADMIN=url, RAWWS_ADMIN_KEY=KEY).replace("0 Web", "1 Web")
        assert shown("topics", "--key", KEY, "--url", url) == "no topics\n"


@contextlib.contextmanager
def answering(text: bytes) -> Iterator[str]:
    """Answer one connection with these bytes."""
    with socket.create_server((LOOPBACK, 0)) as listening:

        def answer() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "is no `rawws serve --admin` (status 200)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no `rawws serve --admin` (status 200)"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", "is no `rawws serve --admin` (status 404)"),
        # A port of the server that wants WebSockets.
        (b"HTTP/1.1 426 X\r\nContent-Length: 3\r\n\r\nno\n", "is no `rawws serve --admin` (status 426)"),
        (b"HTTP/1.1 421 X\r\nContent-Length: 9\r\n\r\nHost\x1b is\n", "answered 421: Host\\x1b is"),
        (b"nothing in HTTP\r\n", "nobody answers at "),
        (b"", "nobody answers at "),
    ],
)
def test_what_is_no_such_answer_is_one_line(text: bytes, why: str) -> None:
    with answering(text) as url:
        status, out, err = run("status", "--url", url)
    assert (status, out) == (1, "")
    assert why in err
    assert err.count("\n") == 1


def test_nobody_there_is_one_line_that_says_what_helps() -> None:
    number = free_port()
    status, out, err = run("top", "--url", f"user:secret@{LOOPBACK}:{number}")
    assert (status, out) == (1, "")
    where = f"http://***@{LOOPBACK}:{number}"
    assert err == (
        f"rawws: nobody answers at {where}: Connection refused (is it served with --admin? --url says where)\n"
    )


@pytest.mark.parametrize(
    ("words", "env", "status", "why"),
    [
        (["status", "--url", "ws://x"], {}, 2, "'ws://x' is no http:// or https:// with a host"),
        (["status", "--url", "http://x:70000"], {}, 2, "is no http:// or https:// with a host"),
        (
            ["status"],
            {"RAWWS_ADMIN": "ftp://x"},
            1,
            "rawws: RAWWS_ADMIN: 'ftp://x' is no http:// or https://",
        ),
        (["topics", "--limit", "0"], {}, 2, "'0' is not a number, 1 to 1000"),
        (["topics", "--limit", "1001"], {}, 2, "'1001' is not a number, 1 to 1000"),
        (["topics", "--limit", "0000000011111"], {}, 2, "'0000000011111' is not a number, 1 to 1000"),
        (["top", "--sort", "name"], {}, 2, "invalid choice: 'name'"),
        (["top", "--interval", "0"], {}, 2, "argument --interval"),
        (["who"], {}, 2, "the following arguments are required: TOPIC"),
    ],
)
def test_a_wrong_word_is_told(words: list[str], env: dict[str, str], status: int, why: str) -> None:
    code, out, err = run(*words, **env)
    assert (code, out) == (status, "")
    assert why in err


def test_sizes_are_short() -> None:
    sizes = [size(value) for value in (0, 1.5, 999, 1000, 1023, 1024, 1536, 1 << 20, 1 << 30, 1 << 41)]
    assert sizes == ["0 B", "1.5 B", "999 B", "1000 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "1.0 GiB", "2048.0 GiB"]
