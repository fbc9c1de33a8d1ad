"""The demo in a real Chromium, as its visitors have it: two people, a phone, a restart, a keyboard, hostile text.

Then its bounds, for programs that do not respect the page's.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect
from websockets import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

import rawws
from rawws.demo import app, connection
from rawws.protocol.http11 import Headers, Request
from tests.processes import LOOPBACK, ROOT, Process, eventually, free_port

DESKTOP = (1280, 900)
PHONE = (390, 844)
STATUSES = {"echo": "Connected", "chat": "Connected", "feed": "Streaming", "poll": "Polling"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with demo(free_port()) as process:
        assert process.port is not None
        yield process.port


def demo(port: int) -> Process:
    return Process([sys.executable, "-m", "rawws", "demo", "--port", str(port)], listens=port)


class Visitor:
    """A page of its own browser profile; `complaints` is what its console said."""

    def __init__(self, browser: Browser, port: int, *, size: tuple[int, int] = DESKTOP, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, locale="en-GB", **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"http://{LOOPBACK}:{port}/")
        self.connected()

    def connected(self) -> None:
        for name, status in STATUSES.items():
            expect(self.page.locator(f"#{name}-status")).to_have_text(status)

    def join(self, name: str) -> None:
        self.page.fill("#join-name", name)
        self.page.click("text=Join")
        expect(self.page.locator("#chat-form")).to_be_visible()

    def say(self, text: str) -> None:
        self.page.fill("#chat-text", text)
        self.page.press("#chat-text", "Enter")

    def echo(self, text: str) -> None:
        self.page.fill("#echo-text", text)
        self.page.press("#echo-text", "Enter")

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_the_echo_shows_the_message_and_its_round_trip(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as visitor:
        visitor.echo("Grüße 👋")
        expect(visitor.page.locator("#echo-log")).to_have_text(re.compile(r"^Grüße 👋[\d.]+ ms$"))
        expect(visitor.page.locator("#echo-last")).to_have_text(re.compile(r"^[\d.]+ ms$"))
        visitor.page.click("text=Send 100 at once")
        expect(visitor.page.locator("#echo-count")).to_have_text("101")
        expect(visitor.page.locator("#echo-log > div").last).to_have_text(
            re.compile(r"^100 messages at once[\d.]+ ms$")
        )
        assert visitor.complaints == []


def test_two_people_talk_and_see_each_other_come_and_go(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as ada:
        ada.join("Ada")
        with Visitor(browser, port) as grace:
            grace.join("Grace")
            for page in (ada.page, grace.page):
                expect(page.locator(".people p")).to_have_text("2 people here: Ada, Grace")
            ada.say("Do you hear me?")
            grace.say("Loud and clear")
            for page in (ada.page, grace.page):
                expect(page.locator("#chat-log .said p").nth(-2)).to_have_text("Do you hear me?")
                expect(page.locator("#chat-log .said p").last).to_have_text("Loud and clear")
            expect(ada.page.locator("#chat-log .mine p").last).to_have_text("Do you hear me?")
            expect(grace.page.locator("#chat-log .mine p").last).to_have_text("Loud and clear")
            assert grace.complaints == []
        expect(ada.page.locator(".people p")).to_have_text("1 person here: Ada")
        expect(ada.page.locator("#chat-log .note").last).to_have_text("Grace left")
        ada.page.click("text=Leave")
        expect(ada.page.locator(".people p")).to_have_text("Nobody here")
        expect(ada.page.locator("#join-name")).to_be_focused()
        assert ada.complaints == []


def test_a_newcomer_reads_what_was_said_before(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as first:
        first.join("First")
        first.say("Said early")
        expect(first.page.locator("#chat-log .said p").last).to_have_text("Said early")
        with Visitor(browser, port) as second:
            expect(second.page.locator("#chat-log .said p").last).to_have_text("Said early")


def test_what_people_type_stays_text(browser: Browser, port: int) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    name = "<b>Mallory</b>"
    with Visitor(browser, port) as visitor:
        visitor.join(name)
        visitor.say(hostile)
        visitor.echo(hostile)
        expect(visitor.page.locator("#chat-log .said p").last).to_have_text(hostile)
        expect(visitor.page.locator("#chat-log .said b").last).to_have_text(name)
        expect(visitor.page.locator(".people p")).to_have_text(f"1 person here: {name}")
        expect(visitor.page.locator("#echo-log span").first).to_have_text(hostile)
        assert visitor.page.locator("main img, main script, main b b").count() == 0
        assert visitor.complaints == []


def test_the_content_security_policy_runs_nothing_but_the_page_itself(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as visitor:
        visitor.page.evaluate(
            """async () => {
                const script = document.createElement("script");
                try { script.textContent = "window.ran = true"; document.body.append(script); } catch { }
                try { document.body.innerHTML += "<img src=x>"; } catch (error) { window.refused = error.name; }
                await fetch("http://localhost:1/").catch(() => {});
            }"""
        )
        assert visitor.page.evaluate("[window.ran, window.refused]") == [None, "TypeError"]
        said = "\n".join(visitor.complaints)
        assert "connect-src 'self'" in said
        assert "require-trusted-types-for 'script'" in said or "TrustedScript" in said


def test_the_page_comes_back_by_itself_when_the_server_does(browser: Browser) -> None:
    number = free_port()
    first = demo(number)
    try:
        visitor = Visitor(browser, number)
        visitor.join("Ada")
        visitor.say("Before")
        expect(visitor.page.locator("#chat-log .said p").last).to_have_text("Before")
    finally:
        first.stop()
    expect(visitor.page.locator("#chat-status")).to_have_text(re.compile(r"^(Retry in \d+ s|Connecting)$"))
    expect(visitor.page.locator(".people p")).to_have_text("Nobody here")
    visitor.page.fill("#chat-text", "Kept")
    visitor.page.press("#chat-text", "Enter")
    expect(visitor.page.locator("#chat-problem")).to_contain_text("your text stays here")
    with demo(number):
        visitor.connected()
        expect(visitor.page.locator(".people p")).to_have_text(
            "1 person here: Ada"
        )  # joined again, under the same name
        visitor.page.press("#chat-text", "Enter")
        expect(visitor.page.locator("#chat-log .mine p").last).to_have_text("Kept")
        visitor.echo("Again")
        expect(visitor.page.locator("#echo-log")).to_contain_text("Again")
        visitor.context.close()


def test_a_click_on_retry_does_not_wait(browser: Browser, port: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    refused = 0

    def refuse_at_first(route: WebSocketRoute) -> None:
        nonlocal refused
        refused += 1
        if refused <= 2:
            route.close(code=1013)
        else:
            route.connect_to_server()

    page.route_web_socket("**/echo", refuse_at_first)
    page.clock.set_fixed_time("2026-01-01")  # the wait never ends by itself
    page.goto(f"http://{LOOPBACK}:{port}/")
    expect(page.locator("#echo-retry")).to_be_visible()
    page.click("#echo-retry")
    expect(page.locator("#echo-retry")).to_be_visible()
    page.click("#echo-retry")
    expect(page.locator("#echo-status")).to_have_text("Connected")
    context.close()


def test_everything_works_from_the_keyboard(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as visitor:
        keyboard = visitor.page.keyboard
        order = []
        for _ in range(9):
            keyboard.press("Tab")
            order.append(visitor.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert order == [
            "echo-burst",
            "echo-log",
            "echo-text",
            "Send",
            "chat-log",
            "join-name",
            "Join",
            "feed-switch",
            "poll-switch",
        ]
        for _ in range(3):
            keyboard.press("Shift+Tab")
        keyboard.type("Ada")
        keyboard.press("Enter")
        expect(visitor.page.locator("#chat-text")).to_be_focused()
        keyboard.type("Typed")
        keyboard.press("Enter")
        expect(visitor.page.locator("#chat-log .mine p").last).to_have_text("Typed")


# The feed


def entry(visitor: Visitor, name: str) -> int:
    """Return the number of the last entry that one side shows."""
    return int(visitor.page.locator(f"#{name}-table tr td").first.inner_text())


def wait_entry(visitor: Visitor, name: str, number: int) -> None:
    visitor.page.wait_for_function(
        "([name, number]) => Number(document.querySelector(`#${name}-table td`)?.textContent) >= number",
        arg=[name, number],
    )


@pytest.mark.parametrize("name", ["feed", "poll"])
def test_a_side_that_was_disconnected_catches_up(browser: Browser, port: int, name: str) -> None:
    other = {"feed": "poll", "poll": "feed"}[name]
    with Visitor(browser, port) as visitor:
        page = visitor.page
        wait_entry(visitor, name, 1)
        page.click(f"#{name}-switch")
        expect(page.locator(f"#{name}-status")).to_have_text("Disconnected")
        wait_entry(visitor, other, entry(visitor, name) + 1)
        known = entry(visitor, name)
        wait_entry(visitor, other, known + 3)
        assert entry(visitor, name) == known
        page.click(f"#{name}-switch")
        wait_entry(visitor, name, known + 3)
        assert "late" in page.locator(f"#{name}-table").inner_text()
        for side in (name, other):
            expect(page.locator(f"#{side}-missing")).to_have_text("0")
        assert visitor.complaints == []


def test_both_sides_show_what_the_server_counted(browser: Browser) -> None:
    number = free_port()
    with demo(number), Visitor(browser, number) as visitor:
        visitor.page.click("text=Send 100 at once")
        for name in ("feed", "poll"):
            visitor.page.wait_for_function(
                """name => 100 === [...document.querySelectorAll(`#${name}-table td:nth-child(3)`)]
                    .reduce((sum, cell) => sum + Number(cell.textContent), 0)""",
                arg=name,
            )
        expect(visitor.page.locator("#now")).to_have_text(
            re.compile(r"^Now: 2 WebSockets, 1 event stream, (1 long poll|0 long polls)$")
        )


def test_what_is_kept_no_longer_is_shown_as_missing(browser: Browser, port: int) -> None:
    def forget(route: Route) -> None:
        """Answer like a server that keeps two entries only."""
        since = re.search(r"since=([^-&]*)", route.request.url)
        assert since is not None
        numbers = (7, 8) if since[1] else (1, 2)
        entries = [
            {"id": f"a-{number}", "time": 1, "messages": 0, "cpu": 0, "sockets": 0, "streams": 0, "polls": 0}
            for number in numbers
        ]
        if "since=a-8" not in route.request.url:  # that one is held
            route.fulfill(json=entries)

    context = browser.new_context()
    page = context.new_page()
    page.route("**/poll?*", forget)
    page.goto(f"http://{LOOPBACK}:{port}/")
    expect(page.locator("#poll-missing")).to_have_text("4")
    expect(page.locator("#poll-entries")).to_have_text("4")
    context.close()


def test_a_page_that_nobody_sees_holds_no_connection(browser: Browser, port: int) -> None:
    with Visitor(browser, port) as visitor:
        page = visitor.page
        wait_entry(visitor, "feed", 1)
        hide = "value => { Object.defineProperty(document, 'hidden', { value, configurable: true }); "
        hide += "document.dispatchEvent(new Event('visibilitychange')); }"
        page.evaluate(hide, True)
        for name in ("feed", "poll"):
            expect(page.locator(f"#{name}-status")).to_have_text("Paused")
        page.click("#poll-switch")
        expect(page.locator("#poll-status")).to_have_text("Disconnected")
        page.evaluate(hide, False)
        expect(page.locator("#feed-status")).to_have_text("Streaming")
        expect(page.locator("#poll-status")).to_have_text("Disconnected")
        expect(page.locator("#feed-missing")).to_have_text("0")


def test_a_feed_that_is_refused_comes_back(browser: Browser, port: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route(re.compile("/(feed|poll)"), lambda route: route.fulfill(status=503))
    page.clock.set_fixed_time("2026-01-01")  # the wait never ends by itself
    page.goto(f"http://{LOOPBACK}:{port}/")
    for name in ("feed", "poll"):
        expect(page.locator(f"#{name}-retry")).to_be_visible()
    page.unroute_all()
    for name in ("feed", "poll"):
        page.click(f"#{name}-retry")
        expect(page.locator(f"#{name}-status")).to_have_text(STATUSES[name])
    context.close()


def test_the_page_and_the_docs_give_the_same_advice(browser: Browser, port: int) -> None:
    text = (ROOT / "docs" / "begin" / "choosing.md").read_text(encoding="utf-8")
    first = text[: text.index("\n\n", text.index("\n| "))]
    documented = [line.strip("| ").split(" | ") for line in first.splitlines() if line.startswith("| ")]
    with Visitor(browser, port) as visitor:
        rows = visitor.page.locator(".choice tr").all()
        assert [row.locator("th, td").all_inner_texts() for row in rows] == documented


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_accessible_and_fits(browser: Browser, port: int, size: tuple[int, int], scheme: str) -> None:
    # Axe brings a script of its own into the page.
    with Visitor(browser, port, size=size, color_scheme=scheme, bypass_csp=True) as visitor:
        visitor.join("Ada")
        visitor.say("A longer message, that has to be wrapped on a phone: " + "x" * 80)
        visitor.echo("y" * 200)
        expect(visitor.page.locator("#echo-log > div")).to_have_count(1)
        expect(visitor.page.locator("#chat-log .mine")).to_have_count(1)
        wait_entry(visitor, "feed", 1)
        wait_entry(visitor, "poll", 1)
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        folder = ROOT / "reports" / "demo"  # to be looked at
        visitor.page.screenshot(path=folder / f"{scheme}-{size[0]}.png", full_page=True)


# The chat room's bounds


def messages(ws: ClientConnection, kind: str) -> Iterator[dict[str, Any]]:
    while True:
        message = json.loads(ws.recv(timeout=60))
        if message["type"] == kind:
            yield message


def ask(ws: ClientConnection, **message: object) -> None:
    ws.send(json.dumps(message))


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ("{", "Expecting property name"),
        ("[]", "allowed are"),
        ('{"type": "join"}', "allowed are"),
        ('{"type": "join", "name": 7}', "allowed are"),
        ('{"type": "join", "name": " \\n\\t "}', "0 characters came, 1 to 24 are allowed"),
        (json.dumps({"type": "join", "name": "x" * 25}), "25 characters came, 1 to 24 are allowed"),
        ('{"type": "say", "text": "Hello"}', "join under a name first"),
        ("[" * 100_000, ""),
        (b"\xff\xfe", ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_message_that_the_room_cannot_use_is_answered(port: int, sent: str | bytes, answer: str) -> None:
    with connect(f"ws://{LOOPBACK}:{port}/chat") as ws:
        ws.send(sent)
        assert answer in next(messages(ws, "error"))["text"]
        ask(ws, type="join", name="Still here")
        assert next(messages(ws, "joined"))["name"] == "Still here"


def test_a_text_is_bounded_and_loses_its_control_characters(port: int) -> None:
    with connect(f"ws://{LOOPBACK}:{port}/chat") as ws:
        ask(ws, type="join", name="A\u0000d\r\na")
        assert next(messages(ws, "joined"))["name"] == "A d a"
        ask(ws, type="say", text="x" * (app.TEXT_LIMIT + 1))
        assert next(messages(ws, "error"))["text"] == "1001 characters came, 1 to 1000 are allowed"
        ask(ws, type="say", text="one\ntwo\ud800\u2028three")
        assert next(messages(ws, "message"))["text"] == "one two three"


def test_the_history_keeps_the_last_fifty(port: int) -> None:
    with connect(f"ws://{LOOPBACK}:{port}/chat") as ws:
        ask(ws, type="join", name="Talker")
        for number in range(app.HISTORY_LIMIT + 5):
            ask(ws, type="say", text=str(number))
        heard = messages(ws, "message")
        assert [next(heard)["text"] for _ in range(55)] == [str(number) for number in range(55)]
        with connect(f"ws://{LOOPBACK}:{port}/chat") as late:
            history = next(messages(late, "welcome"))["history"]
            assert [message["text"] for message in history] == [str(number) for number in range(5, 55)]


def test_a_change_of_name_is_told_and_leaving_takes_the_word_away(port: int) -> None:
    def names() -> list[str]:
        with connect(f"ws://{LOOPBACK}:{port}/chat") as ws:
            found: list[str] = next(messages(ws, "presence"))["names"]
        return found

    # Somebody of the test before may be on the way out.
    eventually(lambda: names() == [])
    with connect(f"ws://{LOOPBACK}:{port}/chat") as ws:
        ask(ws, type="join", name="Ada")
        assert next(messages(ws, "notice"))["text"] == "Ada joined"
        ask(ws, type="join", name="Grace")
        assert next(messages(ws, "notice"))["text"] == "Ada is now Grace"
        ask(ws, type="leave")
        assert next(messages(ws, "presence"))["names"] == ["Grace"]
        assert next(messages(ws, "notice"))["text"] == "Grace left"
        ask(ws, type="say", text="Hello?")
        assert next(messages(ws, "error"))["text"] == "join under a name first"


def test_a_full_room_turns_people_away(port: int) -> None:
    url = f"ws://{LOOPBACK}:{port}/chat"
    with contextlib.ExitStack() as crowd:
        for _ in range(app.ROOM_LIMIT):
            crowd.enter_context(connect(url, compression=None))
        with connect(url) as late, pytest.raises(ConnectionClosedError, match=r"1013.*the room is full"):
            next(messages(late, "welcome"))

    def welcome() -> object:
        with contextlib.suppress(ConnectionClosedError), connect(url) as ws:
            return next(messages(ws, "welcome"))["you"]
        return None

    # Those before may be on the way out.
    eventually(welcome)


# The feed's bounds


def ids(body: str) -> list[str]:
    return [entry["id"] for entry in json.loads(body)]


def test_a_poll_gets_what_is_behind_its_cursor_and_all_where_that_is_unknown(port: int) -> None:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60) as client:
        seen = ids(client.get("/poll").text)
        while len(seen) < 4:
            seen += ids(client.get("/poll", params={"since": seen[-1]}).text)
        numbers = [int(one.partition("-")[2]) for one in seen]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        behind = ids(client.get("/poll", params={"since": seen[-4]}).text)
        assert behind[:3] == seen[-3:]
        for unknown in ("other-1", "-1", "9" * 5000, "\x00", "é"):
            assert set(seen) <= set(ids(client.get("/poll", params={"since": unknown}).text))
        answer = client.get("/poll")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"


def test_a_stream_goes_on_behind_the_last_event_id(port: int) -> None:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60) as client:
        seen = ids(client.get("/poll").text)
        while len(seen) < 3:
            seen += ids(client.get("/poll", params={"since": seen[-1]}).text)
        # What the browser says of itself counts more than what the page once wrote into the URL.
        with client.stream("GET", f"/feed?since={seen[-3]}", headers={"Last-Event-ID": seen[-2]}) as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert [next(lines), next(lines)] == ["retry: 1000", f"id: {seen[-1]}"]


def test_a_full_feed_turns_readers_away_until_one_leaves(port: int) -> None:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60) as client:
        with contextlib.ExitStack() as crowd:

            def admitted() -> bool:
                reader = crowd.enter_context(socket.create_connection((LOOPBACK, port)))
                reader.sendall(b"GET /feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return reader.recv(12) == b"HTTP/1.1 200"

            for _ in range(app.READER_LIMIT):
                # A reader of the test before may be on the way out.
                eventually(admitted)
            for path in ("/feed", "/poll"):
                answer = client.get(path)
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        while client.get("/poll").status_code == 503:
            time.sleep(0.01)


# The page of one connection, without a browser


def test_each_of_a_page_is_told_which_connection_it_came_by(port: int) -> None:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60) as client:
        first, second = (client.get("/connection/request", params={"n": n}).json() for n in (7, 8))
        assert (first["n"], second["n"], first["version"]) == ("7", "8", "1.1")
        # They shared one.
        assert first["port"] == second["port"]
        with client.stream("GET", "/connection/stream?n=9") as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert next(lines) == "retry: 500"
            assert json.loads(next(lines).removeprefix("data: "))["n"] == "9"
    with connect(f"ws://{LOOPBACK}:{port}/connection/socket") as ws:
        ask(ws, n=3)
        assert json.loads(ws.recv(timeout=60)) == {"n": 3, "port": ws.local_address[1], "version": "1.1"}
        ask(ws, close=4003, reason="number 3")
        with pytest.raises(ConnectionClosedError, match=r"4003.*number 3"):
            ws.recv(timeout=60)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("{", "Expecting property name"),
        ("[]", "allowed are"),
        ('{"close": 4000}', "allowed are"),
        ('{"close": 5, "reason": ""}', "5"),
        ("[" * 100_000, ""),
        (b"\xff", ""),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_message_that_cannot_be_obeyed_is_answered(port: int, sent: str | bytes, told: str) -> None:
    with connect(f"ws://{LOOPBACK}:{port}/connection/socket") as ws:
        ws.send(sent)
        assert told in json.loads(ws.recv(timeout=60))["error"]
        ask(ws, n=7)
        assert json.loads(ws.recv(timeout=60))["n"] == 7


def test_too_many_streams_of_the_page_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STREAM_LIMIT", 0)
    request = rawws.HttpRequest(Request("GET", "/connection/stream", Headers(), "2"), {}, (LOOPBACK, 1), "https")
    answer = connection.Streams().open(request)
    assert isinstance(answer, rawws.Response)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")


@pytest.mark.parametrize("name", ["page.html", "connection.html"])
def test_a_page_is_one_file_that_asks_nobody_else_for_anything(name: str) -> None:
    page = Path(app.__file__).with_name(name).read_text(encoding="utf-8")
    assert re.findall(r"https?://(?!www\.w3\.org/)[^\s\"']+", page) == []
    assert "innerHTML" not in page
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*\bsrc=", page) == []
