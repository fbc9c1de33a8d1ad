"""`rawws serve --backplane URL`: the hubs of several servers, and of their workers, are one."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from rawws.backplanes.kafka import KafkaBackplane
from rawws.cli.joining import JoinedHubs
from rawws.cli.loading import CommandError
from rawws.topics import shared
from tests.backplanes.engine_postgres import PostgresEngine
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import fails, port, rawws_command, run, start
from tests.processes import LOOPBACK, Process, ProcessError

# Two hubs: what is said in one is not heard in the other.
TALK = """
import rawws

first = rawws.Hub(authorize=lambda *_: True)
second = rawws.Hub(authorize=lambda *_: True)

async def talk(ws):
    await (first if ws.request.path == "/first" else second).serve(ws)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "talking.py").write_text(TALK)
    return tmp_path


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisEngine]:
    engine = RedisEngine(tmp_path)
    yield engine
    engine.end()


def dial(process: Process, path: str) -> ClientConnection:
    return connect(f"ws://{LOOPBACK}:{port(process)}{path}", subprotocols=[Subprotocol("rawws.v1")])


def ask(ws: ClientConnection, **words: object) -> None:
    ws.send(json.dumps({"id": 1, **words}))


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_what_is_published_at_one_server_is_heard_at_all(here: Path, redis: RedisEngine, options: list[str]) -> None:
    words = ["serve", "talking:talk", "--port", "0", "--subprotocols", "rawws.v1", *options]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(start(here, *words, "--backplane", redis.url)),
            # A password belongs into a variable.
            stack.enter_context(start(here, *words, env={"RAWWS_BACKPLANE": redis.url})),
        ]
        readers = [stack.enter_context(dial(server, path)) for path in ("/first", "/second") for server in servers * 3]
        for reader in readers:
            ask(reader, subscribe="a")
            assert "cursor" in json.loads(reader.recv(timeout=60))
        for path in ("/first", "/second"):
            ask(stack.enter_context(dial(servers[0], path)), publish="a", data=path)
        heard = [json.loads(reader.recv(timeout=60))["data"] for reader in readers]
    assert heard == ["/first"] * 6 + ["/second"] * 6


def test_the_hubs_of_a_process_are_apart_also_where_a_url_has_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "shared", None)
    for url, first, second in (
        ("kafka://127.0.0.1:9092,127.0.0.1:9093/chat", "chat.log", "chat-2.log"),
        ("kafka://127.0.0.1:9092", "rawws.log", "rawws-2.log"),
    ):
        made = [JoinedHubs(url, None)._make(number) for number in (1, 2)]
        assert [each.log for each in made if isinstance(each, KafkaBackplane)] == [first, second]
    with pytest.raises(CommandError, match="allowed are 1 to 64"):
        JoinedHubs("redis://127.0.0.1:6379/0", None, prefix="x" * 64)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "http://ali:sesame@host",
            "the URL of the backplane begins with 'http', allowed are ",
        ),
        ("redis://ali:sesame@host:port", "url is 'redis://***@host:port': "),
    ],
)
def test_a_url_that_names_no_engine_is_told_before_anything_starts(here: Path, url: str, reason: str) -> None:
    told = fails(run(here, "serve", "talking:talk", "--port", "0", "--backplane", url), 1)
    assert told.startswith(f"rawws: --backplane: {reason}")
    assert "sesame" not in told


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(tmp_path)
    yield engine
    engine.end()


def test_what_an_engine_needs_is_made_once_and_where_it_needs_nothing_that_is_told(
    here: Path, postgres: PostgresEngine
) -> None:
    for _ in range(2):
        assert run(here, "backplane", "init", postgres.url, "--prefix", "other").stdout == "other is there\n"
    # A password belongs into a variable.
    command = rawws_command("backplane", "init")
    with Process(command, cwd=here, env={"RAWWS_BACKPLANE": postgres.url}) as process:
        assert process.result(60) == "rawws is there\n"
    told = run(here, "backplane", "init", "redis://localhost")
    assert (told.returncode, told.stdout) == (0, "redis:// needs nothing made before the first hub comes\n")
    postgres.ask("drop schema other cascade")


def test_a_url_on_the_command_line_counts_first_and_there_must_be_one(here: Path) -> None:
    command = rawws_command("backplane", "init", "nats://ali:sesame@localhost")
    with Process(command, cwd=here, env={"RAWWS_BACKPLANE": "redis://localhost"}) as process:
        assert process.result(60) == "nats:// needs nothing made before the first hub comes\n"
    found = run(here, "backplane", "init")
    assert (found.returncode, found.stdout, found.stderr) == (
        2,
        "",
        "rawws: there is no URL, needed is one, or RAWWS_BACKPLANE in the environment\n",
    )


def test_a_package_that_is_missing_is_told(here: Path) -> None:
    code = "import sys; sys.modules['asyncpg'] = None; from rawws.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "backplane", "init", f"postgresql://{LOOPBACK}:1/x"]
    with Process(command, cwd=here) as process, pytest.raises(ProcessError, match="ended with status 1"):
        process.result(60)
    needed = "the PostgreSQL backplane needs asyncpg: pip install 'rawws[postgres]'"
    assert process.output == f"rawws: backplane init: {needed}\n"


def test_an_engine_that_does_not_answer_is_told(here: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        url = f"postgresql://{LOOPBACK}:{listening.getsockname()[1]}/x"
        assert fails(run(here, "backplane", "init", url), 1) == "rawws: backplane init: no answer in time"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["http://ali:sesame@host"], "the URL of the backplane begins with 'http', allowed are "),
        (["postgresql://ali:sesame@host:port"], "url is 'postgresql://***@host:port': a port is no number"),
        (["postgresql://ali:sesame@127.0.0.1:1"], "[Errno 111] Connect"),
        (["URL", "--prefix", "a b"], "prefix is 'a b', allowed are "),
        (["URL", "--role", "nobody"], "there is no role nobody: create it first"),
    ],
    ids=["scheme", "port", "nobody listens", "prefix", "role"],
)
def test_what_cannot_be_made_is_told_in_a_line(
    here: Path, postgres: PostgresEngine, words: list[str], reason: str
) -> None:
    told = fails(run(here, "backplane", "init", *[word.replace("URL", postgres.url) for word in words]), 1)
    assert reason in told
    assert told.startswith("rawws: backplane init: ")
    assert "sesame" not in told
    assert told.count("\n") <= 1
