"""rawws.js when a page is left by a link and shown again, with the back/forward cache of Chromium and without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import browsing, eventually
from tests.javascript.parts import address, publish, serving
from tests.processes import LOOPBACK, Process, free_port

# What a page does that goes on where it was: it keeps its cursor, and what it shows, for as long as its tab lives.
VISIT: Final = """async (url) => {
    const { connect } = await import(`${url}/rawws.js`);
    window.hub = connect(url, window.options ?? {});
    window.log = JSON.parse(sessionStorage.log ?? "[]");
    window.states = []; window.gaps = 0;
    hub.onstate = ({ state }) => states.push(state);
    window.room = hub.subscribe("room", { since: sessionStorage.since ?? "earliest", join: { name: "Ann" } });
    room.onmessage = ({ data, cursor }) => {
        log.push(data);
        sessionStorage.log = JSON.stringify(log);
        sessionStorage.since = cursor;
    };
    room.ongap = () => { gaps += 1; };
    await room.ready;
}"""
WATCH: Final = """async (url) => {
    const { connect } = await import(`${url}/rawws.js`);
    window.room = connect(url).subscribe("room", { watch: true });
    await room.ready;
}"""


@pytest.fixture(scope="module", params=["with", "without"])
def chromium(request: pytest.FixtureRequest) -> Iterator[tuple[Browser, bool]]:
    """A browser, and whether it keeps pages."""
    cache = request.param == "with"
    with browsing(back_forward_cache=cache) as browser:
        yield browser, cache


@pytest.fixture
def server() -> Iterator[Process]:
    with serving(free_port()) as process:
        yield process


def leave(page: Page, to: str) -> None:
    """Follow a link, as a user does."""
    page.evaluate(
        "url => { const a = Object.assign(document.createElement('a'), { href: url, textContent: 'away' }); "
        "document.body.append(a); }",
        to,
    )
    page.click("text=away")
    page.wait_for_url(to)


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
def test_a_page_that_was_left_is_not_present_and_comes_back_with_what_it_missed(
    chromium: tuple[Browser, bool], server: Process, transport: str
) -> None:
    browser, cache = chromium
    url = address(server.port)
    home, elsewhere = f"http://{LOOPBACK}:{server.port}/", f"http://localhost:{server.port}/"
    context = browser.new_context()
    watcher, page = context.new_page(), context.new_page()
    watcher.goto(home)
    watcher.evaluate(WATCH, url)
    page.goto(home)
    page.evaluate("transport => { window.options = { transports: [transport] }; window.kept = true; }", transport)
    page.evaluate(VISIT, url)
    publish(server.port, "room", "one")
    eventually(page, "log.join() === 'one'")
    joined = transport == "websocket"
    eventually(watcher, f"room.count === {int(joined)}")
    left = time.monotonic()
    leave(page, elsewhere)
    eventually(watcher, "room.count === 0")
    # Long before somebody would notice that it is silent.
    assert time.monotonic() - left < 15
    publish(server.port, "room", "two")
    page.go_back(wait_until="commit")  # a page that was kept is not loaded
    assert page.evaluate("window.kept ?? false") is cache
    if not cache:
        # The page is made anew: it goes on where the tab was.
        page.evaluate("transport => { window.options = { transports: [transport] }; }", transport)
        page.evaluate(VISIT, url)
    publish(server.port, "room", "three")
    eventually(page, "log.join() === 'one,two,three'")
    eventually(watcher, f"room.count === {int(joined)}")
    assert page.evaluate("gaps") == 0
    if cache:
        assert page.evaluate("states") == ["open", "connecting", "open"]
    page.evaluate("hub.close()")
    eventually(watcher, "room.count === 0")
    context.close()
