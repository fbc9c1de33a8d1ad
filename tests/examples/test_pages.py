"""The examples' pages in a Chromium: what they show, by day and by night, on a desk and on a phone."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import eventually
from tests.examples.parts import EXAMPLES, FOLDER, REPORTS, SIZES, bundle, context_of, example, visit
from tests.javascript.proxy import Proxy
from tests.processes import LOOPBACK


def test_the_page_lists_every_example_and_they_are_short() -> None:
    listed = re.findall(
        r"^\| \[(\w+)\.py\]\(\1\.py\), \[page\]\(\1\.html\)", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == EXAMPLES
    for name in EXAMPLES:
        # A foreign protocol and a store take their room.
        limit = 200 if name == "collaboration" else 80
        assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= limit


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_stays_up_and_has_its_page(name: str, tmp_path: Path) -> None:
    with example(name, cwd=tmp_path) as process:
        for _ in range(3):
            answer = httpx.get(f"http://{LOOPBACK}:{process.port}/", trust_env=False, timeout=60)
            assert answer.text == (FOLDER / f"{name}.html").read_text(encoding="utf-8")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.result(60) == ""


# -- how they look


def fill(name: str, page: Page) -> None:
    """Have something be seen."""
    match name:
        case "chat":
            page.fill("#text", "Does anybody hear me? " + "x" * 60)
            page.press("#text", "Enter")
            expect(page.locator("#log .mine")).to_have_count(1)
        case "dashboard":
            expect(page.locator("#figures .card")).to_have_count(6)
            eventually(page, "[...document.querySelectorAll('path')].every((p) => p.getAttribute('d')?.length > 200)")
        case "text":
            page.fill("#text", "Dear all,\n\nthis is written by many at once.\n")
            expect(page.locator("#unsent")).to_have_text("")
        case "collaboration":
            page.fill("#who", "Ada")
            expect(page.locator("#people")).to_have_text("Ada")
            page.fill("#text", "Dear all,\n\nthis is written by many at once.\n")
        case "cursors":
            page.mouse.move(200, 400)
            expect(page.locator("#count")).to_have_text("1")
        case "prices":
            expect(page.locator("#rows tr")).to_have_count(12)
            eventually(page, "document.querySelectorAll('.up, .down').length > 3")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_is_accessible_and_fits(browser: Browser, name: str, tmp_path: Path) -> None:
    bundle(tmp_path)
    with example(name, cwd=tmp_path) as process:
        for size in SIZES:
            for scheme in ("light", "dark"):
                complaints: list[str] = []
                context = context_of(browser, size, scheme)
                page = visit(context, process.port, complaints)
                fill(name, page)
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                found = Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
                page.screenshot(path=REPORTS / f"{name}-{size}-{scheme}.png")
                context.close()
                assert complaints == []
        os.kill(process.pid, signal.SIGINT)
        assert process.result(60) == ""


# -- chat


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def test_a_room_has_people_and_a_past_and_no_other_rooms_words(browser: Browser) -> None:
    with example("chat") as process:
        context = context_of(browser)
        ada, grace = visit(context, process.port), visit(context, process.port)
        for page, name in ((ada, "Ada"), (grace, "Grace")):
            page.fill("#name", name)
            page.click("text=Rename")
        for page in (ada, grace):
            expect(page.locator("#people li")).to_have_text(["Ada", "Grace"])
            expect(page.locator("#count")).to_have_text("2")
        say(ada, "Hello <b>Grace</b>")
        expect(grace.locator("#log li")).to_have_text(["AdaHello <b>Grace</b>"])
        expect(ada.locator("#log .mine")).to_have_count(1)
        grace.click("text=music")
        expect(grace.locator("#log li")).to_have_count(0)
        expect(ada.locator("#people li")).to_have_text(["Ada"])
        late = visit(context, process.port)
        expect(late.locator("#log li")).to_have_text(["AdaHello <b>Grace</b>"])
        context.close()


def test_a_chat_goes_on_behind_a_break_and_sends_what_was_said_in_it(browser: Browser) -> None:
    with example("chat") as process, Proxy(process.port or 0) as proxy:
        context = context_of(browser)
        ada, grace = visit(context, proxy.port), visit(context_of(browser), process.port)
        context.set_offline(True)
        proxy.break_all()
        expect(ada.locator(".state")).to_have_text("Connecting")
        say(grace, "one")
        expect(grace.locator("#log li")).to_have_count(1)
        say(ada, "two")
        context.set_offline(False)
        for page in (ada, grace):
            expect(page.locator("#log li")).to_have_text([re.compile("one$"), re.compile("two$")])
        context.close()


# -- dashboard


def test_a_dashboard_streams_and_nobody_else_publishes(browser: Browser) -> None:
    with example("dashboard") as process:
        context = context_of(browser)
        page = visit(context, process.port)
        expect(page.locator(".state")).to_have_text("Connected: event stream")
        expect(page.locator("section", has_text="Readers").locator("p")).to_have_text("1")
        before = page.locator("path").first.get_attribute("d")
        eventually(page, f"document.querySelector('path').getAttribute('d') !== {json.dumps(before)}")
        url = f"http://{LOOPBACK}:{process.port}/topics"
        answer = httpx.post(url, json={"publish": "figures", "data": "lies"}, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()) == (403, {"error": "refused"})
        context.close()


# -- cursors


def test_players_see_each_other_and_the_one_who_leaves_is_gone(browser: Browser) -> None:
    with example("cursors") as process:
        context = context_of(browser)
        one, two = visit(context, process.port), visit(context, process.port)
        expect(one.locator("#count")).to_have_text("2")
        two.focus("#field")
        for key in ("ArrowRight", "ArrowDown"):
            two.keyboard.press(key)
        mine = two.evaluate("me")
        eventually(one, f"players.get({mine})?.x === 34268 && players.get({mine})?.y === 34268")
        # Thirty a second, no more; and the place at which it ends is the last one that is known.
        two.evaluate(
            """() => {
                window.move = setInterval(() => {
                    for (const key of ["ArrowLeft", "ArrowUp"])
                        document.getElementById("field").dispatchEvent(new KeyboardEvent("keydown", { key }));
                }, 1);
            }"""
        )
        eventually(one, f"players.get({mine}).x === 0 && players.get({mine}).y === 0")
        two.close()
        expect(one.locator("#count")).to_have_text("1")
        assert one.evaluate("players.size") == 0
        context.close()


# -- text


def texts(*pages: Page) -> list[str]:
    return [page.input_value("#text") for page in pages]


def kept(port: int | None) -> str:
    found = httpx.get(f"http://{LOOPBACK}:{port}/text", trust_env=False, timeout=60).json()
    return "".join(letter for _, letter, there in found["letters"] if there)


def wait_same(port: int | None, *pages: Page) -> str:
    """Wait until everything is sent, and all pages show what the server has; return it."""
    for page in pages:
        expect(page.locator("#unsent")).to_have_text("")
    text = kept(port)
    for page in pages:
        expect(page.locator("#text")).to_have_value(text)
    return text


def test_what_two_write_at_one_place_is_there_whole_for_both(browser: Browser) -> None:
    with example("text") as process:
        context = context_of(browser)
        one, two = visit(context, process.port), visit(context, process.port)
        for page in (one, two):
            expect(page.locator("#text")).to_be_enabled()
        one.fill("#text", "Hello world")
        expect(two.locator("#text")).to_have_value("Hello world")
        # The caret of one stays where it was while the other writes in front of it.
        one.evaluate("document.querySelector('#text').setSelectionRange(5, 5)")
        two.evaluate("document.querySelector('#text').setSelectionRange(0, 0)")
        two.focus("#text")
        two.keyboard.type("😀 ")
        expect(one.locator("#text")).to_have_value("😀 Hello world")
        one.focus("#text")
        one.keyboard.type(", dear")
        assert wait_same(process.port, one, two) == "😀 Hello, dear world"
        context.close()


def test_what_is_written_offline_comes_together_later(browser: Browser) -> None:
    with example("text") as process, Proxy(process.port or 0) as proxy:
        context = context_of(browser)
        away, there = visit(context, proxy.port), visit(context_of(browser), process.port)
        away.fill("#text", "abc def")
        expect(there.locator("#text")).to_have_value("abc def")
        expect(away.locator("#unsent")).to_have_text("")
        context.set_offline(True)
        proxy.break_all()
        away.fill("#text", "abc! def")
        expect(away.locator("#unsent")).to_have_text("Not yet sent: 1")
        there.fill("#text", "def")
        assert wait_same(process.port, there) == "def"
        context.set_offline(False)
        # "abc" was deleted, and what was written behind it was not.
        assert wait_same(process.port, away, there) == "!def"
        context.close()


WRITE = """async (seed) => {
    const area = document.querySelector("#text");
    let state = seed;
    const random = (limit) => (state = (state * 1103515245 + 12345) % 2147483648) % limit;
    for (let turn = 0; turn < 60; turn += 1) {
        const letters = [...area.value];
        const at = random(letters.length + 1);
        if (random(3)) letters.splice(at, 0, ...`${seed}:${turn} `);
        else letters.splice(at, random(4));
        area.value = letters.join("");
        area.dispatchEvent(new Event("input"));
        await new Promise((resolve) => setTimeout(resolve, random(20)));
    }
}"""


def test_three_who_write_at_random_over_broken_connections_have_one_text(browser: Browser) -> None:
    with example("text") as process, Proxy(process.port or 0) as proxy:
        context = context_of(browser)
        pages = [visit(context, proxy.port) for _ in range(3)]
        for page in pages:
            expect(page.locator("#text")).to_be_enabled()
        for number, page in enumerate(pages):
            page.evaluate(
                f"seed => {{ window.writing = ({WRITE})(seed).then(() => {{ window.done = true; }}); }}", number + 1
            )
        while not all(page.evaluate("window.done === true") for page in pages):
            proxy.break_all()
            pages[0].wait_for_timeout(150)
        text = wait_same(process.port, *pages)
        assert len(text) > 200
        context.close()


def test_a_change_that_is_none_is_refused(browser: Browser) -> None:
    with (
        example("text") as process,
        httpx.Client(base_url=f"http://{LOOPBACK}:{process.port}", trust_env=False, timeout=60) as client,
    ):
        wrong = [
            [],
            {"id": "a", "after": None, "insert": "x"},
            {"id": "a" * 41, "after": None, "insert": "x", "delete": []},
            {"id": "a", "after": None, "insert": "\ud800", "delete": []},
            {"id": 7, "after": None, "insert": "x", "delete": []},
        ]
        for asked in wrong:
            assert client.post("/text", content=json.dumps(asked)).status_code == 400
        for asked in (
            {"id": "a", "after": "nowhere", "insert": "x", "delete": []},
            {"id": "a", "after": None, "insert": "x", "delete": ["nowhere"]},
            {"id": "a", "after": None, "insert": "x" * 100_000, "delete": [7]},
        ):
            assert client.post("/text", content=json.dumps(asked)).status_code == 409
        right: dict[str, object] = {"id": "a", "after": None, "insert": "x", "delete": []}
        for _ in range(2):
            assert client.post("/text", content=json.dumps(right)).status_code == 204
        assert kept(process.port) == "x"


# -- prices


def test_a_page_of_prices_shows_the_latest(browser: Browser) -> None:
    with example("prices") as process:
        context = context_of(browser)
        page = visit(context, process.port)
        page.fill("#search", "AKU")
        expect(page.locator("#rows tr")).to_have_count(1)
        eventually(page, "Number(document.getElementById('rate').textContent.replace(',', '')) > 3000")
        before = page.locator("#rows").inner_text()
        eventually(page, f"document.getElementById('rows').innerText !== {json.dumps(before)}")
        # All its prices are those that the server has at the same cursor.
        same = """async () => {
            for (;;) {
                const found = await (await fetch("/board")).json();
                if (found.cursor === at())
                    return Object.entries(found.prices).filter(([symbol, price]) => prices.get(symbol) !== price);
            }
        }"""
        for _ in range(5):
            assert page.evaluate(same) == []
        context.close()
