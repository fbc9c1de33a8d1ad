"""docs/use/frameworks.md tells the truth: its programs run on each server that it names, and do what it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests import processes
from tests.backplanes.engines import RedisEngine
from tests.browser.chromium import browsing, eventually
from tests.processes import LOOPBACK, ROOT, Process, free_port

PAGE: Final = (ROOT / "docs" / "use" / "frameworks.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OURS: Final = "rawws.integrations.uvicorn:WebSocketProtocol"
PATIENCE: Final = ["--timeout-graceful-shutdown", "1"]
SERVERS: Final[dict[str, Callable[[str, int], list[str]]]] = {
    "rawws": lambda name, port: ["rawws", "serve", "--asgi", f"{name}:app", "--port", str(port)],
    "uvicorn": lambda name, port: ["uvicorn", f"{name}:app", "--port", str(port), *PATIENCE],
    "uvicorn with ours": lambda name, port: ["uvicorn", f"{name}:app", "--port", str(port), "--ws", OURS, *PATIENCE],
}
IMPORT: Final = "from rawws.backplanes.redis import RedisBackplane"
V1: Final = [Subprotocol("rawws.v1")]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(name: str, folder: Path, port: int, changes: Mapping[str, str] | None = None) -> None:
    [text] = [text for found, text in BLOCKS if found == name]
    for old, new in (changes or {}).items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / f"{name}.py").write_text(text.replace("8765", str(port)), encoding="utf-8")


@contextmanager
def running(
    server: str, name: str, folder: Path, port: int | None = None, changes: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a program, with these changes: its HOST:PORT."""
    port = port or free_port()
    write(name, folder, port, changes)
    command = [sys.executable, "-m", *SERVERS[server](name, port)]
    with Process(
        command, cwd=folder, listens=port, env={"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    ) as process:
        yield f"{LOOPBACK}:{port}"
        assert "Traceback" not in process.output, process.output


@contextmanager
def user(address: str, name: str) -> Iterator[httpx.Client]:
    """A client that is logged in."""
    with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        assert client.post("/login", params={"name": name}).status_code in {200, 204}
        yield client


def heard(*people: ClientConnection) -> list[str | bytes]:
    return [person.recv(timeout=60) for person in people]


def data(lines: Iterator[str]) -> str:
    """Return the data of the next event."""
    return next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")


def test_every_program_is_run_here() -> None:
    tested = {"app", "lifespan", "board", "project", "consumers", "shop", "worker", "chat", "test_chat"}
    assert {name for name, _ in BLOCKS} == tested
    assert len(re.findall("^```python", PAGE, re.MULTILINE)) == len(BLOCKS)


def test_the_program_of_fastapi_has_forty_lines() -> None:
    [text] = [text for name, text in BLOCKS if name == "app"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def events_of(client: httpx.Client, since: str) -> contextlib.AbstractContextManager[httpx.Response]:
    return client.stream("GET", "/notifications", headers={"Last-Event-ID": since})


def test_fastapi(server: str, tmp_path: Path) -> None:
    with running(server, "app", tmp_path) as address, user(address, "ada") as ada, user(address, "admin") as admin:
        assert httpx.get(f"http://{address}/notifications", timeout=60).status_code == 401
        assert ada.post("/broadcast", params={"text": "x"}).status_code == 403
        with events_of(ada, "") as feed:
            assert feed.headers["content-type"] == "text/event-stream"
            lines = feed.iter_lines()
            begun = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
            assert admin.post("/broadcast", params={"text": "one"}).status_code == 200
            assert data(lines) == "one"
        assert admin.post("/broadcast", params={"text": "two"}).status_code == 200
        # What came since is not lost, and a browser whose id is nonsense is served all the same.
        with events_of(ada, begun) as feed:
            lines = feed.iter_lines()
            assert [data(lines), data(lines)] == ["one", "two"]
        with events_of(ada, "nonsense") as feed:
            assert feed.status_code == 200


def test_an_endpoint_of_fastapi_that_holds_the_websocket(server: str, tmp_path: Path) -> None:
    with running(server, "chat", tmp_path) as address:
        room = f"ws://{address}/rooms/a?name="
        with connect(f"{room}ada") as one, connect(f"{room}grace") as two:
            one.send("Hello")
            assert heard(one, two) == ["ada: Hello"] * 2
            with connect(f"{room}later") as later:
                assert heard(later) == ["ada: Hello"]


def test_the_page_of_fastapi_hears_what_is_said_and_what_the_admin_says(tmp_path: Path) -> None:
    [block] = re.findall(r"^```js\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with running("rawws", "app", tmp_path) as address, browsing() as browser, user(address, "admin") as admin:
        page = browser.new_page()
        page.goto(f"http://{address}/topics/rawws.js")
        page.evaluate("fetch('/login?name=ada', { method: 'POST' })")
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.evaluate(f"async () => {{ {block} }}")
        # An event stream without a cursor begins when it begins.
        while not {"ada: Hello", "good night"} <= set(said):
            assert admin.post("/broadcast", params={"text": "good night"}).status_code == 200
            page.wait_for_timeout(50)
        page.close()


# -- two users in a browser, and a restart in the middle

ENTER: Final = """async ([name, feed]) => {
    await fetch(`/login?name=${name}`, { method: "POST" });
    const { connect } = await import("/topics/rawws.js");
    window.hub = connect("/topics/");
    window.log = []; window.notes = []; window.gaps = 0; window.unanswered = 0;
    window.room = hub.subscribe("rooms/kitchen", { since: "earliest", join: { name: "admin" }, watch: true });
    room.onmessage = ({ data }) => log.push(data);
    room.ongap = () => { gaps += 1; };
    const source = feed ? new EventSource("/notifications") : hub.subscribe("everybody", { since: "earliest" });
    source.onmessage = ({ data }) => notes.push(data);
    await room.ready;
}"""
# Whether it is published, a page that had no answer does not know: so here it says it again.
WRITE: Final = """async (name) => {
    for (let number = 0; number < 60; number += 1) {
        for (;;) {
            try {
                await hub.publish("rooms/kitchen", `${name} ${number}`);
                break;
            } catch (error) {
                if (error.code !== "unanswered") throw error;
                unanswered += 1;
            }
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    window.done = true;
}"""
HUB: Final = "rawws.Hub(identify=identify, authorize=authorize"


def present(address: str, cookies: dict[str, str]) -> list[str]:
    """Return who is there, by what the server says of them."""
    answer = httpx.post(f"http://{address}/topics/", json={"presence": "rooms/kitchen"}, cookies=cookies, timeout=60)
    return sorted(each["user"] for each in answer.json()["members"])


@pytest.mark.parametrize("name", ["app", "project"])
def test_two_users_write_over_a_restart_and_nothing_is_lost_or_forged(server: str, name: str, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        redis = RedisEngine(tmp_path)
        stack.callback(redis.end)
        # As the page says.
        backplane = f'backplane=RedisBackplane("{redis.url}")'
        assert 'backplane=RedisBackplane("redis://127.0.0.1:6379")' in PAGE
        [lifespan] = [text for found, text in BLOCKS if found == "lifespan"]
        with_lifespan = lifespan[lifespan.index("@asynccontext") : lifespan.index("@app.post")]
        changes = {HUB: f"{HUB}, {backplane}", "import rawws\n": f"import rawws\n{IMPORT}\n"}
        if name == "app":
            changes["app = FastAPI()\n"] = f"from contextlib import asynccontextmanager\n{with_lifespan}"
        browser = stack.enter_context(browsing())
        serving = ExitStack()
        stack.push(serving)
        address = serving.enter_context(running(server, name, tmp_path, port, changes))
        contexts = {who: browser.new_context() for who in ("ada", "grace")}
        pages = {who: context.new_page() for who, context in contexts.items()}
        for who, page in pages.items():
            page.goto(f"http://{address}/topics/rawws.js")
            page.evaluate(ENTER, [who, name == "app"])
        cookies = {each["name"]: each["value"] for each in contexts["ada"].cookies()}
        # Both say that they are the admin; the server knows better.
        assert present(address, cookies) == ["ada", "grace"]
        for who, page in pages.items():
            page.evaluate(f"name => {{ ({WRITE})(name); }}", who)
        eventually(pages["ada"], "log.length > 20")
        serving.close()
        serving.enter_context(running(server, name, tmp_path, port, changes))
        for page in pages.values():
            eventually(page, "window.done === true")
        admin = serving.enter_context(user(address, "admin"))
        assert admin.post("/broadcast", params={"text": "good night"}).status_code == 200
        forge(address, cookies)
        expected = {f"{who} {number}" for who in pages for number in range(60)}
        for page in pages.values():
            eventually(page, "notes.includes('good night')")
            eventually(page, f"new Set(log).size === {len(expected)}")
            assert page.evaluate("gaps") == 0
        said: list[str] = pages["ada"].evaluate("log")
        assert set(said) == expected
        assert pages["grace"].evaluate("log") == said
        assert len(said) - len(expected) <= sum(page.evaluate("unanswered") for page in pages.values())
        for who in pages:
            numbers = [int(text.split()[1]) for text in said if text.startswith(who)]
            assert sorted(numbers) == numbers
        # The server says of each who wrote it.
        asked = {"topic": "rooms/kitchen", "since": "earliest"}
        held = httpx.get(f"http://{address}/topics/", params=asked, cookies=cookies, timeout=60).json()["publications"]
        assert len(held) == 100
        assert all(each["data"].startswith(f"{each['user']} ") for each in held)
        assert present(address, cookies) == ["ada", "grace"]
        for context in contexts.values():
            context.close()


def forge(address: str, cookies: dict[str, str]) -> None:
    """Try to say something in the name of somebody else."""
    url = f"http://{address}/topics/"
    [(name, value)] = cookies.items()
    altered = value[:-3] + ("abc" if value[-3:] != "abc" else "xyz")
    for known in ({}, {name: altered}, {name: "x"}):
        said = httpx.post(url, json={"publish": "rooms/kitchen", "data": "forged"}, cookies=known, timeout=60)
        assert said.status_code in {401, 403}
        said = httpx.post(f"http://{address}/broadcast", params={"text": "forged"}, cookies=known, timeout=60)
        assert said.status_code in {401, 403}
    asked = [
        ({"publish": "rooms/kitchen", "data": "forged", "user": "admin"}, 400),
        ({"publish": "everybody", "data": "forged"}, 403),
        ({"publish": "users/grace", "data": "forged"}, 403),
    ]
    for body, status in asked:
        assert httpx.post(url, json=body, cookies=cookies, timeout=60).status_code == status
    assert (
        httpx.post(f"http://{address}/broadcast", params={"text": "forged"}, cookies=cookies, timeout=60).status_code
        == 403
    )
    with connect(f"ws://{address}/topics/", subprotocols=V1, additional_headers={"Cookie": f"{name}={value}"}) as ws:
        ws.send(json.dumps({"id": 1, "publish": "rooms/kitchen", "data": "forged", "user": "admin"}))
        assert json.loads(ws.recv(timeout=60))["error"] == "malformed"


def test_fastapi_with_a_lifespan(server: str, tmp_path: Path) -> None:
    with running(server, "lifespan", tmp_path) as address:
        cursor = httpx.post(f"http://{address}/broadcast", params={"text": "x"}, timeout=60).json()
        assert cursor.endswith(":1")


def test_two_workers_have_one_hub(tmp_path: Path) -> None:
    port = free_port()
    write("lifespan", tmp_path, port)
    command = ["rawws", "serve", "--asgi", "lifespan:app", "--port", str(port), "--workers", "2"]
    with Process([sys.executable, "-m", *command], cwd=tmp_path, listens=port) as process:
        process.wait_for(lambda output: "2 workers" in output, "both serve")

        def have_one() -> bool:
            """Tell whether 20 publications, by whichever worker, have one place after the other."""
            url = f"http://{LOOPBACK}:{port}/broadcast"
            cursors = [httpx.post(url, params={"text": "x"}, timeout=60).json().split(":") for _ in range(20)]
            first = int(cursors[0][1])
            return cursors == [[cursors[0][0], str(first + number)] for number in range(20)]

        # A worker that has not reached the broker yet gives places of its own.
        processes.eventually(have_one)
        assert "Traceback" not in process.output


def test_starlette_with_rawws_js_in_a_browser(server: str, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack, browsing() as browser:
        address = stack.enter_context(running(server, "board", tmp_path, port))
        context = browser.new_context()
        ada, stranger = context.new_page(), browser.new_page()
        for page in (ada, stranger):
            page.goto(f"http://{address}/")
            eventually(page, "window.say !== undefined")
        assert "refused" in str(stranger.evaluate("say('forged').catch(String)"))
        # The connection that there is was opened by nobody in particular.
        ada.evaluate("fetch('/login?name=ada', {method: 'POST'})")
        ada.reload()
        eventually(ada, "window.say !== undefined")
        assert ada.evaluate("say('Hello')")
        for page in (ada, stranger):
            eventually(page, "document.querySelectorAll('li').length === 1")
            assert page.inner_text("li") == "Hello"
        with httpx.stream("GET", f"http://{address}/feed", timeout=60) as feed:
            assert data(feed.iter_lines()) == "Hello"
        # The pages come back to a server that is started again, and are who they were.
        stack.close()
        with running(server, "board", tmp_path, port):
            assert "refused" in str(stranger.evaluate("say('forged').catch(String)"))
            assert ada.evaluate("say('Again')")
            for page in (ada, stranger):
                eventually(page, "document.querySelectorAll('li').length === 2")
                assert page.inner_text("li:last-child") == "Again"


def test_django(server: str, tmp_path: Path) -> None:
    with running(server, "project", tmp_path) as address, user(address, "admin") as admin:
        with connect(f"ws://{address}/topics/", subprotocols=V1) as ws:
            ws.send(json.dumps({"id": 1, "subscribe": "everybody"}))
            assert "cursor" in json.loads(ws.recv(timeout=60))
            assert admin.post("/broadcast", params={"text": "Hello"}).text == "1 have it"
            assert json.loads(ws.recv(timeout=60))["data"] == "Hello"
            ws.send(json.dumps({"id": 2, "subscribe": "rooms/a"}))
            assert json.loads(ws.recv(timeout=60)) == {"id": 2, "error": "refused"}
        assert admin.get("/nowhere").status_code == 404
        answer: Any = httpx.get(
            f"http://{address}/topics/", params={"topic": "everybody", "since": "earliest"}, timeout=60
        ).json()
        assert [each["data"] for each in answer["publications"]] == ["Hello"]


def test_django_channels(server: str, tmp_path: Path) -> None:
    with running(server, "consumers", tmp_path) as address:
        with connect(f"ws://{address}/rooms/a") as ada, connect(f"ws://{address}/rooms/a") as grace:
            ada.send("Hello")
            assert heard(ada, grace) == ["Hello"] * 2
            grace.send(b"\x00")
            assert heard(ada, grace) == [b"\x00"] * 2
        with connect(f"ws://{address}/rooms/a") as later:
            assert heard(later, later) == ["Hello", b"\x00"]


def test_flask_and_its_workers(tmp_path: Path) -> None:
    port = free_port()
    for name in ("shop", "worker"):
        write(name, tmp_path, port)
    with Process([sys.executable, "shop.py"], cwd=tmp_path, listens=port) as process:
        with connect(f"ws://{LOOPBACK}:{port}/topics", subprotocols=V1) as ws:
            ws.send(json.dumps({"id": 1, "subscribe": "orders"}))
            assert "cursor" in json.loads(ws.recv(timeout=60))
            assert httpx.post(f"http://{LOOPBACK}:{port}/orders", data={"item": "tea"}, timeout=60).status_code == 202
            assert json.loads(ws.recv(timeout=60))["data"] == "tea is packed"
            with Process([sys.executable, "worker.py"], cwd=tmp_path) as worker:
                assert worker.result(60) == "['cursor']\n"
            assert json.loads(ws.recv(timeout=60))["data"] == "a parcel left"
        forged = httpx.post(
            f"http://{LOOPBACK}:{port}/topics", json={"publish": "orders", "data": "forged"}, timeout=60
        )
        assert forged.status_code == 403
        assert httpx.get(f"http://{LOOPBACK}:{port}/nowhere", timeout=60).status_code == 404
        assert "Traceback" not in process.output


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    for name in ("chat", "test_chat"):
        write(name, tmp_path, 0)
    with Process(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_chat.py"], cwd=tmp_path
    ) as process:
        assert "1 passed" in process.result(60)


def test_each_part_names_the_packages_that_its_programs_import() -> None:
    # With FastAPI comes Starlette, and with Django what Channels needs.
    brought = {"fastapi": {"fastapi", "starlette"}, "channels": {"channels", "django"}}
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    known = set()
    for section in sections:
        named = {word for line in re.findall(r"`pip install ([^`]+)`", section) for word in line.split()}
        programs = "\n".join(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        imported = set(re.findall(r"^(?:import|from) (\w+)", programs, re.MULTILINE))
        theirs = imported - {"rawws", "chat"} - set(sys.stdlib_module_names)
        if "starlette.middleware.sessions" in programs:
            theirs.add("itsdangerous")
        known |= named
        if section.startswith("In tests"):
            assert {"pytest", "httpx2"} <= named
            theirs &= {"pytest"}
        assert theirs <= named.union(*(brought.get(name, {name}) for name in named)), section.partition("\n")[0]
    assert {"fastapi", "starlette", "django", "channels", "flask", "asgiref"} <= known
