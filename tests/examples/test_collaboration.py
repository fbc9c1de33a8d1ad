"""Documents that many edit with Yjs: clients of y-websocket in Node and in a Chromium, breaks, restarts, enemies."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect
from pycrdt import (
    Doc,
    Encoder,
    Map,
    Text,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    handle_sync_message,
)
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.examples.parts import bundle, context_of, example, visit
from tests.javascript.parts import node
from tests.javascript.proxy import Proxy
from tests.processes import LOOPBACK, ROOT, Process, find_node

PAGE: Final = ROOT / "docs" / "use" / "collaboration.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a server is started that has the bundle, and keeps its documents."""
    bundle(tmp_path)
    return tmp_path


def url(port: int | None) -> str:
    return f"ws://{LOOPBACK}:{port}/documents"


class Client:
    """A client of pycrdt, which does nothing by itself."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.people: list[bytes] = []
        self.ws.send(create_sync_message(self.doc))
        while not self.take():
            pass

    def take(self) -> bool:
        """Take a message; tell whether it was what the server has."""
        message = self.ws.recv(timeout=60)
        assert isinstance(message, bytes)
        if message[0] == 1:
            self.people.append(message)
            return False
        if answer := handle_sync_message(message[1:], self.doc):
            self.ws.send(answer)
        return message[1] == 1

    def write(self, text: str) -> None:
        before = self.doc.get_state()
        self.text += text
        self.ws.send(create_update_message(self.doc.get_update(before)))

    def wait_for(self, text: str) -> None:
        while str(self.text) != text:
            self.take()


Clients = Callable[..., Client]


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Connect to a document at a port."""
    with ExitStack() as stack:
        yield lambda port, name="notes": Client(
            stack.enter_context(connect(f"{url(port)}/{name}", max_size=None, compression=None))
        )


def kept(folder: Path, name: str = "notes") -> Doc[Any]:
    """Return what the store has."""
    store = sqlite3.connect(folder / "documents.sqlite")
    doc: Doc[Any] = Doc()
    for (update,) in store.execute("SELECT data FROM updates WHERE document = ? ORDER BY rowid", [name]):
        doc.apply_update(update)
    store.close()
    return doc


# -- y-websocket in Node


def test_clients_that_write_over_broken_lines_and_restarts_have_the_same_in_the_end(
    folder: Path, clients: Clients
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(example("collaboration", cwd=folder))
        port = server.port or 0
        proxy = stack.enter_context(Proxy(port))
        urls = [url(port), url(proxy.port), url(proxy.port)]
        with node("yjs.mjs", urls, 150, 7, version="24") as writers:
            for turn in itertools.count():
                if "written" in writers.output:
                    break
                have = len(proxy.seen)
                proxy.break_all()
                if turn % 4 == 3:
                    # Whatever was sent to another client survives even this.
                    server.send_signal(signal.SIGKILL if turn % 8 == 3 else signal.SIGTERM)
                    server.stop()
                    server = stack.enter_context(example("collaboration", cwd=folder, port=port))
                while len(proxy.seen) == have and "written" not in writers.output:
                    time.sleep(0.01)
            found = json.loads(writers.result(60).splitlines()[-1])
        assert len(found["text"]) > 1000
        assert str(clients(port).text) == found["text"]
    doc = kept(folder)
    assert (str(doc.get("text", type=Text)), doc.get("map", type=Map).to_py()) == (found["text"], found["map"])


def test_the_program_of_the_page_hears_of_changes(folder: Path, clients: Clients) -> None:
    [block] = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    with example("collaboration", cwd=folder) as server:
        (folder / "page.mjs").write_text(block.replace("8765", str(server.port)), encoding="utf-8")
        with Process([find_node("24"), "page.mjs"], cwd=folder) as page:
            one = clients(server.port)
            while not one.people:
                one.take()
            assert b'{"user": {"name": "Ada"}}' in one.people[-1]
            one.write("Hello")
            page.wait_for(lambda output: output == "Hello\n", "it hears")


# -- in a Chromium


def texts(text: str, *pages: Page) -> None:
    for page in pages:
        expect(page.locator("#text")).to_have_value(text)


def test_two_pages_write_at_once_and_offline_and_over_a_restart(browser: Browser, folder: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(example("collaboration", cwd=folder))
        port = server.port or 0
        proxy = stack.enter_context(Proxy(port))
        away, there = context_of(browser), context_of(browser)
        one, two = visit(away, proxy.port), visit(there, port)
        for page, name in ((one, "Ada"), (two, "Grace")):
            page.fill("#who", name)
        for page in (one, two):
            expect(page.locator("#people")).to_have_text("Ada, Grace")
        one.fill("#text", "Hello world")
        texts("Hello world", one, two)
        # The caret of one stays where it was while the other writes in front of it.
        one.evaluate("document.querySelector('#text').setSelectionRange(5, 5)")
        two.evaluate("document.querySelector('#text').setSelectionRange(0, 0)")
        two.focus("#text")
        two.keyboard.type("😀 ")
        texts("😀 Hello world", one, two)
        one.focus("#text")
        one.keyboard.type(", dear")
        texts("😀 Hello, dear world", one, two)
        # One is away, and both go on.
        away.set_offline(True)
        proxy.break_all()
        expect(one.locator(".state")).to_have_text("Connecting")
        expect(two.locator("#people")).to_have_text("Grace")
        one.keyboard.type("est")
        two.focus("#text")
        for key in ("Control+Home", "Delete", "Delete", "Control+End", "!"):
            two.keyboard.press(key)
        texts("Hello, dear world!", two)
        server.stop()
        stack.enter_context(example("collaboration", cwd=folder, port=port))
        away.set_offline(False)
        for page in (one, two):
            expect(page.locator("#text")).to_have_value("Hello, dearest world!")
        # Another document is another one.
        other = visit(there, port, path="/#other")
        expect(other.locator("#name")).to_have_text("other")
        texts("", other)
        for context in (away, there):
            context.close()


def test_a_page_without_the_bundle_says_what_is_missing(browser: Browser, tmp_path: Path) -> None:
    with example("collaboration", cwd=tmp_path) as server:
        page = browser.new_page()
        page.goto(f"http://{LOOPBACK}:{server.port}/")
        expect(page.locator(".state")).to_contain_text("docs/use/collaboration.md")
        page.close()


# -- enemies


def number(value: int) -> bytes:
    encoder = Encoder()
    encoder.write_var_uint(value)
    return encoder.to_bytes()


def sync(step: int, body: bytes) -> bytes:
    return bytes([0, step]) + number(len(body)) + body


def state(*entries: tuple[int, int, str]) -> bytes:
    encoder = Encoder()
    encoder.write_var_uint(len(entries))
    for client, clock, text in entries:
        encoder.write_var_uint(client)
        encoder.write_var_uint(clock)
        encoder.write_var_string(text)
    return create_awareness_message(encoder.to_bytes())


# pycrdt panics over the first: a change of the marks of letters that it does not know. It fails with half of it made
# over the second, and asks for room for 2**30 clients over the third.
PANIC: Final = (
    "010bbd9cf397d2b28209000401017402686581bd9cf397d2b2820901ffffffff0f84bd9cf397d2b2820903016f84bd9cff97d2b28209040620"
    "776f726c642801016d0161017601017875037c3f8000007c400000007c4040000008010161027c40400000770278782701016d016b012700bd"
    "9cf397d2b282090e017a020400bd9cf397d2b282090f017146bd9cf397d2b282090004626f6c640474727565c6bd9cf397d2b2820904bd9cf3"
    "97d2b282090504626f6c64046e756c6c01bd9cf397d2b28209010202"
)
HALF: Final = (
    PANIC.replace("d2b28209000401", "d2b28209010401")
    .replace("01ffffffff0f84", "010284")
    .replace("bd9cff97", "bd9cf397")
)
HOSTILE: Final = {
    "text": "Hello",
    "nothing": b"",
    "no kind": b"\x07\x00",
    "a kind alone": b"\x00",
    "no step": sync(3, b"\x00\x00"),
    "a length that lies": b"\x00\x02\xff\xff\x03x",
    "a number without end": b"\x00\x02" + b"\xff" * 500_000,
    "an empty update": sync(2, b""),
    "no update": sync(2, b"\x01\x01\x01garbage"),
    "no state": sync(0, b"\x05\x01"),
    "states of many": sync(0, b"\xff\xff\xff\xff\x07"),
    "updates of many": sync(2, b"\xff\xff\xff\xff\x07"),
    "a panic": sync(2, bytes.fromhex(PANIC)),
    "half an update": sync(2, bytes.fromhex(HALF)),
    "people of many": create_awareness_message(b"\xff\xff\xff\xff\x07"),
    "no JSON": state((1, 1, "{")),
    "no number": state((1, 1, "NaN")),
    "no end": state((1, 1, "[" * 2000)),
    "a long state": state((1, 1, json.dumps("x" * 3000))),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with example("collaboration", cwd=tmp_path_factory.mktemp("attacked")) as server:
        yield server
        assert "ERROR" not in server.output


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_message_ends_its_connection_alone(
    attacked: Process, clients: Clients, message: str | bytes
) -> None:
    one, two = clients(attacked.port), clients(attacked.port)
    before = str(one.text)
    enemy = clients(attacked.port)
    enemy.ws.send(message)
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            enemy.ws.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "no message of y-websocket")
    one.write("x")
    two.wait_for(before + "x")
    assert str(clients(attacked.port).text) == before + "x"


def test_a_name_that_is_none_is_refused(attacked: Process) -> None:
    for name in ("a%20b", "x" * 51):
        with connect(f"{url(attacked.port)}/{name}") as ws, pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4404


def test_a_document_that_is_full_takes_no_more_and_is_whole(folder: Path, clients: Clients) -> None:
    with example("collaboration", cwd=folder) as server:
        writer = clients(server.port, "big")
        # Of what was deleted, nothing is kept but that it was: so this is not much. Each change comes back, and whoever
        # does not read them is closed for that.
        for _ in range(10):
            writer.write("x" * 1_000_000)
            writer.take()
            before = writer.doc.get_state()
            writer.text.clear()
            writer.ws.send(create_update_message(writer.doc.get_update(before)))
            writer.take()
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(10):
                writer.write("y" * 1_000_000)
                writer.take()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4413, "the document is full")
        again = clients(server.port, "big")
        assert str(again.text) == "y" * 4_000_000
        # One message is too large by itself, and another document is as it was.
        writer = clients(server.port, "small")
        with pytest.raises(ConnectionClosed, match="1009"):
            writer.write("y" * 4_200_000)
            while True:
                writer.ws.recv(timeout=60)
        other = clients(server.port, "small")
        other.write("z")
        assert str(clients(server.port, "small").text) == "z"
    assert str(kept(folder, "big").get("text", type=Text)) == "y" * 4_000_000


def test_a_large_change_reaches_all(folder: Path, clients: Clients) -> None:
    with example("collaboration", cwd=folder) as server:
        reader, writer = clients(server.port), clients(server.port)
        writer.write("x" * 3_000_000)
        # It may be more than may wait for a client; then that is closed, comes back, and asks.
        with suppress(ConnectionClosedError):
            reader.wait_for("x" * 3_000_000)
        assert reader.ws.close_code in {None, 1013}
        assert str(clients(server.port).text) == "x" * 3_000_000


def test_a_connection_speaks_for_one_client(folder: Path, clients: Clients) -> None:
    with example("collaboration", cwd=folder) as server:
        one, enemy = clients(server.port), clients(server.port)
        one.ws.send(state((1, 1, '{"name": "Ada"}')))
        enemy.ws.send(state((2, 1, '{"name": "Eve"}')))
        # It passes on what others say, as clients do; and says it of nobody but itself.
        enemy.ws.send(state(*((client, 9, "null") for client in range(500))))
        enemy.ws.send(state((2, 3, '{"name": "Eve"}')))
        while not one.people or one.people[-1] != state((2, 3, '{"name": "Eve"}')):
            one.take()
        late = clients(server.port)
        ada, eve = (1, 1, '{"name": "Ada"}'), (2, 3, '{"name": "Eve"}')
        # In whichever order pycrdt has them.
        [told] = set(late.people)
        assert told in {state(ada, eve), state(eve, ada)}
        # It is gone when its last connection is.
        twice = clients(server.port)
        twice.ws.send(state((2, 4, '{"name": "Eve"}')))
        while late.people[-1] != state((2, 4, '{"name": "Eve"}')):
            late.take()
        for leaving in (enemy, twice):
            leaving.ws.close()
        while late.people[-1] != state((2, 4, "null")):
            late.take()
        assert state((2, 3, "null")) not in late.people
