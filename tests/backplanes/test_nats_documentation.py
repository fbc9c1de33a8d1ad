"""The page about NATS tells the truth: its program, its configurations and its rights do, and its table matches."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from pathlib import Path
from typing import Final

from rawws.backplanes.nats import NatsBackplane
from rawws.topics import Hub
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.handlers import Reader
from tests.backplanes.test_documentation import talk
from tests.processes import LOOPBACK, ROOT, Process, find_installed, free_port
from tests.server.peers import eventually, run

PAGE: Final = (ROOT / "docs" / "run" / "nats.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the block of the page that begins with a name."""
    [found] = re.findall(rf"```\w+\n(# {re.escape(name)}\n.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(NatsBackplane.__init__).parameters
    assert listed == {name: repr(each.default) for name, each in parameters.items() if name != "self"}


def test_its_program_runs_twice_and_acts_as_one_with_its_server(tmp_path: Path) -> None:
    program, config = tmp_path / "chat.py", tmp_path / "nats.conf"
    program.write_text(block("chat.py"), encoding="utf-8")
    config.write_text(block("nats.conf").replace("/var/lib/nats", str(tmp_path / "nats")), encoding="utf-8")
    port, *ports = [free_port() for _ in range(3)]
    command = [find_installed("nats-server"), "-c", str(config), "-a", LOOPBACK, "-p", str(port)]
    first, second = ([sys.executable, str(program), str(each), f"nats://{LOOPBACK}:{port}"] for each in ports)
    with Process(command, listens=port), Process(first, listens=ports[0]), Process(second, listens=ports[1]):
        assert run(talk(ports))[-1] == "Hi"


async def test_a_user_with_its_rights_can_do_all_that_a_hub_does(tmp_path: Path) -> None:
    engine = NatsEngine(tmp_path, block("users.conf"))
    engine.arguments["url"] = engine.url.replace("//", "//rawws:secret@")
    try:
        one, two = (Hub(backplane=engine.backplane()) for _ in range(2))
        async with one, two:
            readers = [Reader(), Reader()]
            await one.subscribe(readers[0], "a b", join="me")
            await two.subscribe(readers[1], "a b")
            large = "x" * 100_000
            for message in ("1", large):
                assert (await one.publish("a b", message)).accepted
            await eventually(lambda: all(reader.got == ["1", large] for reader in readers))
            await eventually(lambda: len(two.presence("a b")) == 1)
            late = Reader()
            await two.subscribe(late, "a b", since="earliest")
            assert late.got == ["1", large]
            assert one.stats().faults == two.stats().faults == one.stats().retries == 0

            def ask() -> bytes:
                with engine.talk("rawws:secret") as connection:
                    return connection.ask("rawws.publish.a%20b", b"2")[1]

            assert b"cursor" in await asyncio.to_thread(ask)
    finally:
        engine.end()
