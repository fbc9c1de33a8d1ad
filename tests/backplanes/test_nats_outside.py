"""Publishing without a hub, as docs/run/nats.md shows it: programs and a shell that know NATS, at a real server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rawws.backplanes import nats_outside
from rawws.backplanes.nats_records import quoted
from rawws.backplanes.nats_writer import NatsWriter
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.handlers import Reader, hubs
from tests.processes import ROOT
from tests.server.peers import eventually

PAGE: Final = (ROOT / "docs" / "run" / "nats.md").read_text(encoding="utf-8")
ODD: Final = "é/a b.{c}%~_.-€*>😀"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[NatsEngine]:
    made = NatsEngine(tmp_path)
    yield made
    made.end()


@contextlib.contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Give what tells how many bytes are held since."""
    tracemalloc.start()

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    try:
        yield held
    finally:
        tracemalloc.stop()


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def request(engine: NatsEngine, subject: str, data: bytes, headers: str = "") -> dict[str, Any]:
    """Ask as another program does; hubs of this loop answer."""

    def ask() -> dict[str, Any]:
        with engine.talk() as talk:
            found: dict[str, Any] = json.loads(talk.ask(subject, data, headers)[1])
            return found

    return await asyncio.to_thread(ask)


async def test_the_program_and_the_shell_of_the_page_publish_to_all_subscribers(
    engine: NatsEngine, tmp_path: Path
) -> None:
    [program] = re.findall(r"```python\n(# tell\.py\n.*?)```", PAGE, re.DOTALL)
    [shell] = re.findall(r"```bash\n(exec .*?)```", PAGE, re.DOTALL)
    path = tmp_path / "tell.py"
    path.write_text(program, encoding="utf-8")
    async with hubs(engine) as (one, two):
        readers = [Reader(), Reader()]
        await one.subscribe(readers[0], "chat")
        await two.subscribe(readers[1], "chat")
        first = await one.publish("chat", "from a hub")
        said = json.loads(await run(sys.executable, str(path), engine.url))
        assert said == {"cursor": first.cursor.removesuffix(":1") + ":2"}
        found = await run("bash", "-c", shell.replace("/127.0.0.1/4222", f"/127.0.0.1/{engine.port}"))
        assert json.loads(found) == {"cursor": first.cursor.removesuffix(":1") + ":3"}
        assert (await two.publish("chat", "from another")).cursor.endswith(":4")
        wanted = ["from a hub", "Hello", "Hello", "from another"]
        await eventually(lambda: all(reader.got == wanted for reader in readers))
        back = Reader()
        assert (await two.subscribe(back, "chat", since=first.cursor)).recovered
        assert back.got == wanted[1:]


async def test_names_keys_events_json_and_bytes_come_as_they_were(engine: NatsEngine) -> None:
    subject = f"rawws.publish.{quoted(ODD)}"
    async with hubs(engine) as (one, two):
        reader = Reader()
        await one.subscribe(reader, ODD)
        await two.subscribe(Reader(), ODD)
        said = [
            (b"text \xc3\xa9", ""),
            (b"\xff\x00", ""),
            (b"", "Rawws-Key: %C3%A9%0A"),
            (b"[1]", "Rawws-Json: true\r\nRawws-Event: a%20%22b%22"),
        ]
        for number, (data, headers) in enumerate(said, 1):
            assert (await request(engine, subject, data, headers))["cursor"].endswith(f":{number}")
        await eventually(lambda: len(reader.got) == 4)
        assert reader.got == ["text é", b"\xff\x00", "", "[1]"]
        _, found, _ = one.recall(ODD, since="earliest")
        assert [(each.key, each.event, each.is_json) for each in found[2:]] == [
            ("é\n", None, False),
            (None, 'a "b"', True),
        ]


@pytest.mark.parametrize(
    ("name", "data", "headers", "error"),
    [
        ("a%0A", b"", "", "topic"),
        ("%FF", b"", "", "malformed"),
        ("x" * 256, b"", "", "topic"),
        ("~rawws%2Fcontrol", b"", "", "topic"),
        ("a", b"", f"Rawws-Key: {'k' * 256}", "key"),
        ("a", b"", "Rawws-Event: %07", "event"),
        ("a", b"{", "Rawws-Json: true", "malformed"),
        ("a", b"x" * 1_048_400, "", "unavailable"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason(
    engine: NatsEngine, name: str, data: bytes, headers: str, error: str
) -> None:
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "begun")
        found = await request(engine, f"rawws.publish.{name}", data, headers)
        assert found["error"] == error
        assert found["reason"]
        # Who gave no subject for it gets no answer.
        with engine.talk() as talk:
            talk.tell(f"rawws.publish.{name}", data, headers)
            talk.tell("rawws.publish.a", b"more")
        reader = Reader()
        await hub.subscribe(reader, "a")
        await hub.publish("a", "last")
        await eventually(lambda: reader.got[-1] == "last")


async def test_requests_under_way_are_bounded(engine: NatsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_outside, "MAX_WAITING", 0)
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "begun")
        assert (await request(engine, "rawws.publish.a", b"x"))["error"] == "limit"


async def test_messages_of_requests_under_way_are_bounded_in_bytes(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = asyncio.Event()
    write = NatsWriter._work

    async def wait(writer: NatsWriter, topic: str) -> None:
        await going.wait()
        await write(writer, topic)

    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "begun")
        # A stream that takes its time.
        monkeypatch.setattr(NatsWriter, "_work", wait)
        replication: Any = hub._replication
        outside = replication.backplane._outside
        monkeypatch.setattr(nats_outside, "MAX_WAITING_SIZE", 4 << 20)
        with memory() as held, engine.talk() as talk:

            def say() -> bytes:
                for number in range(40):
                    talk.tell(f"rawws.publish.{number}", b"x" * (500 << 10), f"Padding: {'y' * (500 << 10)}")
                return talk.ask("rawws.publish.b", b"x" * (500 << 10))[1]

            refused = json.loads(await asyncio.to_thread(say))
            assert refused["error"] == "limit"
            assert refused["reason"] == "requests have 4608000 bytes of messages under way, limit 4194304"
            assert len(outside._waiting) == 8
            assert held() < 6 << 20
        going.set()
        await eventually(lambda: not outside._waiting)
        assert outside._size == 0
        monkeypatch.setattr(nats_outside, "MAX_WAITING_SIZE", 1)
        assert "cursor" in await request(engine, "rawws.publish.0", b"alone")


async def test_without_a_hub_nobody_answers(engine: NatsEngine) -> None:
    with engine.talk() as talk:
        headers, data = talk.ask("rawws.publish.a", b"x")
    assert headers.startswith("NATS/1.0 503")
    assert data == b""
