"""rawws.js in a real Chromium: as it is served, over each transport, offline and back, hidden, from elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.chromium import eventually
from tests.javascript.parts import address, publish, serving
from tests.javascript.proxy import Proxy
from tests.processes import LOOPBACK, ROOT, Process, free_port

# Collects the numbers; `states` are those of the hub.
CONNECT: Final = """async ([url, options]) => {
    const { connect } = await import(`${url}/rawws.js`);
    window.hub = connect(url, options);
    window.states = []; window.log = []; window.gaps = 0;
    hub.onstate = ({ state, transport, reason }) => { states.push(transport ?? state); window.reason ||= reason; };
    const numbers = hub.subscribe("numbers", { since: "earliest" });
    numbers.onmessage = ({ data }) => log.push(Number(data));
    numbers.ongap = () => { gaps += 1; };
    await numbers.ready;
}"""
WHOLE: Final = "log.length > 0 && gaps === 0 && log.every((number, index) => number === index + 1)"
# No reconnect comes by itself while a test runs.
PATIENT: Final = {"retryBase": 1 << 30, "retryCap": 1 << 30}


@pytest.fixture
def server() -> Iterator[Process]:
    """Give a server of its own to each test: of an older one, the earliest number that is held is not the first."""
    with serving(free_port()) as process:
        yield process


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


def visit(context: BrowserContext, port: int | None, complaints: list[str] | None = None) -> Page:
    page = context.new_page()
    heard = [] if complaints is None else complaints
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(f"http://{LOOPBACK}:{port}/")
    return page


def more(page: Page, count: int = 100) -> None:
    """Wait for more numbers."""
    eventually(page, f"log.length >= {page.evaluate('log.length') + count}")


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
def test_each_transport_brings_all_and_a_changed_one_goes_on(
    context: BrowserContext, server: Process, transport: str
) -> None:
    complaints: list[str] = []
    page = visit(context, server.port, complaints)
    page.evaluate(CONNECT, [address(server.port), {"transports": [transport]}])
    more(page)
    assert page.evaluate("[hub.transport, states]") == [transport, [transport]]
    assert page.evaluate(
        """async () => {
            const octets = Uint8Array.from([0, 127, 128, 255]);
            const both = hub.subscribe("both");
            await both.ready;
            const cursor = await hub.publish("both", octets, { key: "k" });
            for await (const { data, cursor: found } of both) return [...data, found === cursor];
        }"""
    ) == [0, 127, 128, 255, True]
    page.evaluate("hub.close()")
    known = page.evaluate("log.length")
    publish(server.port, "told", "nobody")
    assert page.evaluate("[log.length, hub.state]") == [known, "closed"]
    assert page.evaluate(WHOLE)
    assert complaints == []


def test_everybody_knows_who_is_there(context: BrowserContext, server: Process) -> None:
    watch = """async ([url, options, name]) => {
        const { connect } = await import(`${url}/rawws.js`);
        window.hub = connect(url, options);
        window.room = hub.subscribe("room", { watch: true, ...(name ? { join: { name } } : {}) });
        window.names = () => [...room.members.values()].map(({ name }) => name).sort().join();
        window.told = [];
        const sign = ({ join, leave }) => join ? `+${join.info.name}` : leave ? `-${leave.info.name}` : "";
        room.onpresence = (event) => told.push(sign(event));
        await room.ready;
    }"""
    ada, grace, onlooker = (visit(context, server.port) for _ in range(3))
    ada.evaluate(watch, [address(server.port), {}, "Ada"])
    assert ada.evaluate("[names(), room.count, room.members.has(room.present)]") == ["Ada", 1, True]
    grace.evaluate(watch, [address(server.port), {}, "Grace"])
    onlooker.evaluate(watch, [address(server.port), {"transports": ["poll"]}, ""])
    for page in (ada, grace, onlooker):
        eventually(page, "names() === 'Ada,Grace' && room.count === 2")
    assert [one["info"]["name"] for one in onlooker.evaluate("hub.presence('room')")["members"]] == ["Ada", "Grace"]
    grace.evaluate("hub.close()")
    eventually(ada, "names() === 'Ada' && room.count === 1")
    assert ada.evaluate("told") == ["", "+Grace", "-Grace"]
    # Over HTTP nobody tells: it is looked at again, in 10 s.
    eventually(onlooker, "names() === 'Ada' && room.count === 1")


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
def test_offline_and_back_loses_nothing_and_does_not_wait(browser: Browser, transport: str) -> None:
    with serving(free_port()) as server, Proxy(server.port or 0) as proxy:
        context = browser.new_context()
        page = visit(context, proxy.port)
        page.evaluate(CONNECT, [address(proxy.port), {"transports": [transport], **PATIENT}])
        more(page)
        context.set_offline(True)
        proxy.break_all()
        eventually(page, "hub.state === 'connecting'")
        page.evaluate("window.late = hub.publish('late', 'said offline'); window.known = log.length")
        context.set_offline(False)
        assert ":" in page.evaluate("late")
        eventually(page, "log.length > known + 100")
        assert page.evaluate("states") == [transport, "connecting", transport]
        assert page.evaluate(WHOLE)
        context.close()


def test_a_page_that_is_seen_again_does_not_wait(context: BrowserContext, server: Process) -> None:
    with Proxy(server.port or 0) as proxy:
        page = visit(context, proxy.port)
        page.evaluate(CONNECT, [address(proxy.port), PATIENT])
        more(page)
        hide = "value => { Object.defineProperty(document, 'hidden', { value, configurable: true }); "
        hide += "document.dispatchEvent(new Event('visibilitychange')); }"
        page.evaluate(hide, True)
        proxy.break_all()
        eventually(page, "hub.state === 'connecting'")
        page.evaluate("dispatchEvent(new Event('online'))")
        assert page.evaluate("hub.state") == "connecting"
        page.evaluate(hide, False)
        eventually(page, "hub.state === 'open'")
        more(page)
        assert page.evaluate(WHOLE)


def test_a_connection_of_the_network_before_is_found_out(context: BrowserContext, server: Process) -> None:
    with Proxy(server.port or 0) as proxy:
        page = visit(context, proxy.port)
        # It has as much time for the first connection as for what finds out.
        page.evaluate(CONNECT, [address(proxy.port), {"openTimeout": 5000, "pingInterval": 1 << 30}])
        more(page)
        proxy.rules["websocket"] = ("stall", 0)
        page.evaluate("dispatchEvent(new Event('online'))")
        eventually(page, "states.includes('connecting')")
        assert page.evaluate("reason") == "nothing came since the network changed"
        del proxy.rules["websocket"]
        more(page)
        assert page.evaluate(WHOLE)


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
def test_what_was_published_and_not_answered_is_told(context: BrowserContext, server: Process, transport: str) -> None:
    with Proxy(server.port or 0) as proxy:
        page = visit(context, proxy.port)
        page.evaluate(CONNECT, [address(proxy.port), {"transports": [transport], "openTimeout": 2000}])
        more(page)
        proxy.rules.update({"websocket": "hold", "other": "hold"})
        # A promise that is the value would be waited for.
        page.evaluate("void (window.asked = hub.publish('held', 'x').then(() => 'done', ({ code }) => code))")
        if transport == "websocket":
            proxy.break_all()
        # Over HTTP, the call itself gives up.
        assert page.evaluate("asked") == "unanswered"
        proxy.rules.clear()
        # What was held meanwhile, such as a poll, never comes.
        proxy.break_all()
        more(page)
        assert page.evaluate(WHOLE)


def test_the_page_of_another_site_uses_all_of_it_where_it_is_allowed(context: BrowserContext, server: Process) -> None:
    with serving(free_port()) as other:
        page = visit(context, other.port)
        for transport in ("websocket", "stream", "poll"):
            page.evaluate(CONNECT, [address(server.port), {"transports": [transport]}])
            more(page)
            assert ":" in page.evaluate("hub.publish('far', 'away')")
            assert page.evaluate("hub.transport") == transport
            assert page.evaluate(WHOLE)
            page.evaluate("hub.close()")


def test_the_module_of_the_docs_runs(context: BrowserContext, server: Process) -> None:
    text = (ROOT / "docs" / "use" / "javascript.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"^```js\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    page = visit(context, server.port)
    page.add_script_tag(content=code, type="module")
    eventually(page, "document.title === 'Hello from the page'")


def test_the_program_of_the_docs_shows_a_page_that_comes_back(browser: Browser, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "use" / "javascript.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(# page.*?)^```$", text, re.MULTILINE | re.DOTALL)
    port = free_port()
    (tmp_path / "page.py").write_text(program.replace("8765", str(port)), encoding="utf-8")
    context = browser.new_context()
    ada, grace = context.new_page(), context.new_page()
    for said in ("Hello", "Again"):
        with Process([sys.executable, "-W", "error", "page.py"], cwd=tmp_path, listens=port):
            for page in (ada, grace) if said == "Hello" else ():
                page.goto(f"http://{LOOPBACK}:{port}/")
            # Both are there: what was said before one came back to a server that began anew is not told.
            for page in (ada, grace):
                eventually(page, "!document.querySelector('input').disabled")
            ada.fill("input", said)
            ada.press("input", "Enter")
            for page in (ada, grace):
                eventually(page, f"document.querySelector('li:last-child')?.textContent === '{said}'")
    context.close()


def test_what_breaks_behind_a_proxy_is_replaced_here_too(browser: Browser) -> None:
    rules: dict[str, Any] = {"websocket": ("cut", 5000), "stream": "hold"}
    with serving(free_port()) as server, Proxy(server.port or 0) as proxy:
        proxy.rules.update(rules)
        context = browser.new_context()
        page = visit(context, proxy.port)
        page.evaluate(CONNECT, [address(proxy.port), {"openTimeout": 500, "retryBase": 20, "betterAfter": 500}])
        eventually(page, "hub.transport === 'poll'")
        more(page)
        proxy.rules.clear()
        eventually(page, "hub.transport === 'websocket'")
        more(page)
        assert page.evaluate(WHOLE)
        context.close()
