"""`python -m rawws` as a person types it: real processes, real sockets, real signals."""

from __future__ import annotations

import argparse
import asyncio
import errno
import inspect
import os
import re
import signal
import socket
import ssl
import stat
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme
from websockets import ConnectionClosedError, ConnectionClosedOK, Subprotocol
from websockets.sync.client import connect, unix_connect

import rawws
import rawws.sync
from rawws.cli import arguments, serve
from rawws.cli.main import parser
from tests.cli.commands import ASGI, echoes, fails, get, port, run, start
from tests.processes import LOOPBACK, ROOT, Process, ProcessError, eventually

# What goes well


@pytest.mark.parametrize(
    ("target", "answer"),
    [("chat:echo", "Grüße"), ("chat:Shout", "GRÜSSE"), ("chat:Namespace.shout", "GRÜSSE"), ("chat:instance", "Grüße")],
)
def test_serve_runs_what_the_target_names(here: Path, target: str, answer: str) -> None:
    with start(here, "serve", target, "--port", "0") as process, connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
        assert echoes(ws) == answer


def test_the_startup_line_says_where_it_listens_and_what_runs(here: Path) -> None:
    with start(here, "serve", "chat:echo", "--port", "0") as process:
        line = process.output.strip()
        assert re.fullmatch(
            r"listening on ws://127\.0\.0\.1:\d+ \(rawws [\w.]+ \((compiled|interpreted)\) on (uvloop|asyncio), "
            r"(zlib|isal) [\w.-]+ and Python 3\.\d+\.\d+\w*; Ctrl-C ends it\)",
            line,
        )


def test_serve_listens_on_every_host_that_is_named(here: Path) -> None:
    arguments = ["serve", "chat:echo", "--host", "127.0.0.1", "--host", "127.0.0.2", "--port", "0"]
    with start(here, *arguments) as process:
        process.wait_for(lambda output: output.count("listening on") == 2, "both lines")
        for host, number in re.findall(r"ws://(\S+):(\d+)", process.output):
            with connect(f"ws://{host}:{number}") as ws:
                assert echoes(ws) == "Grüße"


def test_an_ipv6_address_is_shown_as_it_is_typed_into_a_client(here: Path) -> None:
    with start(here, "serve", "chat:echo", "--host", "::1", "--port", "0") as process:
        found = re.search(r"ws://\[::1\]:\d+", process.output)
        assert found is not None
        with connect(found[0]) as ws:
            assert echoes(ws) == "Grüße"


def test_serve_listens_on_a_unix_socket(here: Path) -> None:
    arguments = ("serve", "chat:echo", "--uds", "chat.sock", "--uds-mode", "600")
    with start(here, *arguments), unix_connect(str(here / "chat.sock")) as ws:
        assert stat.S_IMODE((here / "chat.sock").stat().st_mode) == 0o600
        assert "cannot listen on chat.sock: another server listens there" in fails(run(here, *arguments), 1)
        assert echoes(ws) == "Grüße"


def test_serve_speaks_tls(here: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(here / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with start(here, "serve", "chat:echo", "--port", "0", "--ssl-certfile", "both.pem") as process:
        assert "wss://" in process.output
        # Not by websockets.sync: its two threads read and write one TLS connection, and one of hundreds never opens.
        with rawws.sync.connect(f"wss://{LOOPBACK}:{port(process)}", ssl=context) as ws:
            assert echoes(ws) == "Grüße"


@pytest.mark.parametrize(("engine", "polls"), [("asyncio", 1), ("epoll", 2)])
def test_serve_runs_on_the_engine_that_is_named(here: Path, engine: str, polls: int) -> None:
    with (
        start(here, "serve", "chat:echo", "--port", "0", "--engine", engine) as process,
        connect(f"ws://{LOOPBACK}:{port(process)}") as ws,
    ):
        assert echoes(ws) == "Grüße"
        # The loop has an epoll, and the engine one of its own.
        opened = [str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert opened.count("anon_inode:[eventpoll]") == polls


def test_the_limits_reach_the_server(here: Path) -> None:
    limits = ["--max-size", "1k", "--subprotocols", "chat.v2, chat.v1", "--no-compression"]
    with (
        start(here, "serve", "chat:echo", "--port", "0", *limits) as process,
        connect(f"ws://{LOOPBACK}:{port(process)}", subprotocols=[Subprotocol("chat.v1")]) as ws,
    ):
        assert ws.subprotocol == "chat.v1"
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        assert echoes(ws, "x" * 1024) == "x" * 1024
        ws.send("x" * 1025)
        with pytest.raises(ConnectionClosedError, match="1009"):
            ws.recv(timeout=60)


def refused(uri: str) -> int | None:
    """Return the status that a client is refused with, None for one that is not; it may come before the request."""

    async def attempt() -> int | None:
        try:
            async with rawws.connect(uri, proxy=None):
                return None
        except rawws.InvalidStatus as error:
            return error.status

    return asyncio.run(attempt())


def test_the_limits_of_connections_reach_the_server(here: Path) -> None:
    limits = ["--max-connections", "1", "--handshake-rate", "0.15"]
    with start(here, "serve", "chat:echo", "--port", "0", *limits) as process:
        uri = f"ws://{LOOPBACK}:{port(process)}"
        with connect(uri) as ws:
            assert refused(uri) == 503
            assert echoes(ws) == "Grüße"
        while (status := refused(uri)) != 429:
            assert status in {None, 503}


@pytest.mark.parametrize(("said", "threshold"), [("", 10_000), ("20_000", 20_000), ("0", 0)])
def test_garbage_is_looked_for_seldom_unless_the_application_says_more_or_never(
    here: Path, said: str, threshold: int
) -> None:
    program = f"import gc\n\ngc.set_threshold({said})\n" if said else "import gc\n\n"
    program += "async def tell(ws):\n    await ws.send(str(gc.get_threshold()[0]))\n"
    (here / "tells.py").write_text(program)
    with start(here, "serve", "tells:tell", "--port", "0") as process:
        with connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
            assert ws.recv() == str(threshold)


FAULTS = """import resource

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(4):
        blocks = [b"x" * (1 << 20) for _ in range(4)]
        del blocks

async def tell(ws):
    work()
    before = faults()
    work()
    await ws.send(str(faults() - before))

if __name__ == "__main__":
    import rawws, socket
    sock = socket.create_server(("127.0.0.1", 0))
    print(f"listening on ws://127.0.0.1:{sock.getsockname()[1]} ", flush=True)
    rawws.run(tell, sock=sock)
"""
PAGES = 4 * 4 * 256


@pytest.mark.parametrize("variable", ["", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
@pytest.mark.parametrize("command", ["serve", "run"])
def test_memory_of_large_messages_is_kept_unless_the_operator_says_otherwise(
    here: Path, command: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "131072")
    (here / "tells.py").write_text(FAULTS)
    started = (
        start(here, "serve", "tells:tell", "--port", "0")
        if command == "serve"
        else Process([sys.executable, "tells.py"], cwd=here)
    )
    with started as process:
        process.wait_for(lambda output: "listening on" in output, "it says where it listens")
        with connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
            count = int(ws.recv())
        assert count >= PAGES if variable else count < PAGES / 8


@pytest.mark.parametrize(
    ("options", "origin", "status"),
    [
        ([], "https://elsewhere.example", "403"),
        (["--origins", "https://a.example,https://b.example"], "https://b.example", "101"),
        (["--origins", "https://a.example,https://b.example"], "https://c.example", "403"),
        (["--origins", "https://a.example"], None, "101"),
        (["--origins", "*"], "https://c.example", "101"),
    ],
)
def test_origins_decide_which_pages_may_connect(
    here: Path, options: list[str], origin: str | None, status: str
) -> None:
    header = f"Origin: {origin}\r\n" if origin else ""
    request = (
        f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{header}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with (
        start(here, "serve", "chat:echo", "--port", "0", *options) as process,
        socket.create_connection((LOOPBACK, port(process)), timeout=60) as sock,
    ):
        sock.sendall(request.encode())
        assert sock.recv(4096).split(b" ")[1].decode() == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_connections_and_exits_with_0(here: Path, number: signal.Signals) -> None:
    with start(here, "serve", "chat:echo", "--port", "0") as process:
        with connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
            assert echoes(ws) == "Grüße"
            os.kill(process.pid, number)
            with pytest.raises(ConnectionClosedOK, match="1001"):
                ws.recv(timeout=60)
        assert "Traceback" not in process.result(60)


def test_a_second_signal_waits_for_nobody(here: Path) -> None:
    with start(here, "serve", "chat:echo", "--port", "0", "--close-timeout", "60") as process:
        with socket.create_connection((LOOPBACK, port(process)), timeout=60) as sock:  # it will not answer the close
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
            os.kill(process.pid, signal.SIGINT)
            assert sock.recv(4096)[:1] == b"\x88"
            os.kill(process.pid, signal.SIGINT)
            with pytest.raises(ProcessError, match="ended with status 130"):
                process.result(60)
        assert "Traceback" not in process.output


@pytest.mark.parametrize("pure", ["0", "1"])
def test_version_names_the_twin_that_runs(here: Path, pure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAWWS_PURE", pure)
    found = run(here, "--version")
    compiled = pure == "0" and any((ROOT / "rawws" / "protocol").glob("frames.*.so"))
    twin = "compiled" if compiled else "interpreted"
    assert re.fullmatch(
        rf"rawws [\w.]+ \({twin}\) on (uvloop|asyncio), (zlib|isal) [\w.-]+ and Python 3\.\d+\.\d+\w*\n", found.stdout
    )
    assert found.returncode == 0


def test_pure_makes_the_interpreted_twin_run_beside_compiled_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAWWS_PURE", "1")
    assert "(interpreted)" in run(here, "--version").stdout


def test_the_help_of_each_command_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    waiting, seen = [parser()], 0
    while waiting:
        command = waiting.pop()
        for action in command._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
        # What is written as it stands does not follow the width.
        assert max(map(len, (command.description or "").splitlines()), default=0) <= 80
        assert max(map(len, command.format_help().splitlines())) <= 100
        seen += 1
    assert seen > 14


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["demo", "--help"]])
def test_help_fits_a_terminal_and_fails_nothing(here: Path, arguments: list[str]) -> None:
    found = run(here, *arguments)
    assert found.returncode == 0
    assert found.stderr == ""
    assert max(map(len, found.stdout.splitlines())) <= 100


def test_the_defaults_that_help_shows_are_those_of_serve(here: Path) -> None:
    shown = " ".join(run(here, "serve", "--help").stdout.split())
    for name in arguments.LIMITS:
        default = inspect.signature(rawws.serve).parameters[name].default
        if default:
            flag = f"--{name.replace('_', '-')} "
            assert f"(default: {default})" in shown[shown.rindex(flag) :].partition(" --")[0]


# What goes wrong: one line, a status, no traceback


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("nowhere:echo", r"cannot import 'nowhere': there is no module 'nowhere' in \S+ or installed"),
        ("chat.inner:echo", r"cannot import 'chat\.inner': .*"),
        ("chat:nothing", r"'chat' has no 'nothing'"),
        ("chat:Namespace.nothing", r"'chat' has no 'Namespace\.nothing'"),
        (
            "chat:number",
            r"chat:number is of type int; allowed are a coroutine function, a rawws\.Handler and a rawws\.Routes",
        ),
        ("chat:not_async", r"chat:not_async is a function without `async`; allowed are .*"),
        ("chat:Echo", r"chat:Echo is a class; allowed are .*"),
        ("chat:two", r"chat:two: handler takes \(ws, path\), it is called with \(ws\)"),
        ("chat:app", r"chat:app: handler takes \(scope, receive, send\), .*; --asgi serves an ASGI application"),
        ("chat:Picky", r"cannot make a chat:Picky: TypeError: .*'room'.*"),
        (
            "needy:echo",
            r"cannot import 'needy': ModuleNotFoundError: .*'a_package_that_nobody_has' \(needy\.py, line 1\)",
        ),
        ("needy_too:echo", r"cannot import 'needy_too': ModuleNotFoundError: .*'needy_to' \(needy_too\.py, line 1\)"),
        ("torn:echo", r"cannot import 'torn': SyntaxError: .* \(torn\.py, line 1\)"),
        ("raising:echo", r"cannot import 'raising': KeyError: 'key' \(raising\.py, line 3\)"),
    ],
)
def test_a_target_that_cannot_be_served_is_one_line(here: Path, target: str, line: str) -> None:
    assert re.fullmatch(f"rawws: {line}", fails(run(here, "serve", target), 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["dance"], "dance"),
        (["serve"], "required: MODULE:OBJECT"),
        (["serve", "chat"], "'chat' is not MODULE:OBJECT, for example chat:chat"),
        (["serve", "chat:"], "'chat:' is not MODULE:OBJECT"),
        (["serve", "chat:echo", "--port", "65536"], "'65536' is not a port, 0 to 65535"),
        (["serve", "chat:echo", "--port", "http"], "'http' is not a port"),
        (["serve", "chat:echo", "--max-size", "1g"], "'1g' is not a number of bytes"),
        (["serve", "chat:echo", "--max-size", "0"], "'0' is not a number of bytes"),
        (["serve", "chat:echo", "--max-connections", "0"], "'0' is not a whole number above 0"),
        (["serve", "chat:echo", "--handshake-rate", "fast"], "'fast' is not a number above 0"),
        (["serve", "chat:echo", "--open-timeout", "0"], "'0' is not a time in seconds"),
        (["serve", "chat:echo", "--open-timeout", "nan"], "'nan' is not a time in seconds"),
        (["serve", "chat:echo", "--open-timeout", "off"], "'off' is not a time in seconds"),
        (["serve", "chat:echo", "--ping-interval", "soon"], "'soon' is not a time in seconds"),
        (["serve", "chat:echo", "--compress"], "unrecognized arguments: --compress"),
        (["serve", "chat:echo", "--http2", "yes"], "'yes' is not one of auto, on, off, no-websocket"),
        (["serve", "chat:echo", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["serve", "chat:echo", "--engine", "kqueue"], "invalid choice: 'kqueue'"),
        (["serve", "chat:echo", "--uds", "x", "--uds-mode", "999"], "'999' are no permissions, allowed are 0 to 777"),
        (["serve", "chat:echo", "--uds", "x", "--port", "1"], "--uds stands for --host and --port"),
        (["serve", "chat:echo", "--ssl-keyfile", "x"], "--ssl-keyfile needs --ssl-certfile"),
    ],
)
def test_a_wrong_word_on_the_command_line_exits_with_2(here: Path, arguments: list[str], words: str) -> None:
    line = fails(run(here, *arguments), 2)
    assert words in line
    command = " ".join(word for word in arguments[:1] if word == "serve")
    assert f"rawws {command}".rstrip() + ": error: " in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["connect", "ws:127.0.0.1:8765"], "'ws:127.0.0.1:8765' has no // after ws:"),
        (["send", "WSS:127.0.0.1", "x"], "'WSS:127.0.0.1' has no // after wss:"),
        (["publish", "http:127.0.0.1/api", "news", "x"], "'http:127.0.0.1/api' has no // after http:"),
        (["status", "--url", "http:127.0.0.1"], "'http:127.0.0.1' has no // after http:"),
    ],
)
def test_a_url_without_its_slashes_is_told(here: Path, arguments: list[str], words: str) -> None:
    assert words in fails(run(here, *arguments), 2)


def test_the_host_that_is_not_found_is_named_also_where_it_is_the_proxy(here: Path) -> None:
    line = fails(run(here, "connect", "ws://127.0.0.1:8765", "--proxy", "http://name.invalid:3128"), 1)
    assert "the host name.invalid is not found: " in line


def test_the_port_of_a_server_is_not_taken_for_its_admin(here: Path) -> None:
    with start(here, "serve", "chat:echo", "--port", "0") as process:
        line = fails(run(here, "status", "--url", f"http://{LOOPBACK}:{port(process)}"), 1)
    assert "is no `rawws serve --admin` (status 426)" in line


@pytest.mark.parametrize("command", [["serve", "chat:echo"], ["demo"]])
def test_a_busy_port_is_one_line(here: Path, command: list[str]) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        number = str(other.getsockname()[1])
        line = fails(run(here, *command, "--port", number), 1)
    assert line == (
        f"rawws: cannot listen on 127.0.0.1, port {number}: another program listens there; --port chooses another port"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1, port 8765: this machine has no such address"),
        (["--host", "name.invalid"], "cannot listen on name.invalid, port 8765: "),
        (["--uds", "no/such/folder/chat.sock"], "cannot listen on no/such/folder/chat.sock: No such file or directory"),
        (
            ["--host", "192.0.2.1", "--host", "192.0.2.2"],
            "cannot listen on 192.0.2.1 and 192.0.2.2, port 8765: this machine has no such address",
        ),
        (["--uds", "chat.py"], "cannot listen on chat.py: that is there, and no socket"),
        (["--uds", "x" * 120], "AF_UNIX path too long"),
        (["--trusted-proxies", "a proxy"], "a proxy"),
        (["--ssl-certfile", "none.pem"], "cannot read certificate none.pem: No such file or directory"),
        (["--ssl-certfile", "chat.py"], "cannot use certificate chat.py: "),
        (["--ssl-certfile", "chat.py", "--ssl-keyfile", "none.pem"], "certificate chat.py with key none.pem: "),
    ],
)
def test_what_cannot_be_had_is_one_line(here: Path, arguments: list[str], words: str) -> None:
    assert words in fails(run(here, "serve", "chat:echo", *arguments), 1)


def test_the_module_is_found_in_this_directory_also_where_python_does_not_look_there(here: Path) -> None:
    with start(here, "serve", "chat:echo", "--port", "0", env={"PYTHONSAFEPATH": "1"}) as process:
        assert "listening on ws://" in process.output


def test_a_port_that_takes_a_privilege_is_said_to() -> None:
    # Who runs the tests may have it.
    assert serve._reason(PermissionError(errno.EACCES, "Permission denied")) == (
        "this user may not; ports from 1024 on need no privilege"
    )


# The demo, without a browser


def test_the_demo_names_the_page_and_answers_health_checks(here: Path) -> None:
    with start(here, "demo", "--port", "0") as process:
        number = port(process)
        assert process.output.startswith(f"open http://127.0.0.1:{number} (rawws ")
        assert get(number, "/healthz") == (200, b"ok\n")
        assert get(number, "/nothing")[0] == 404
        status, page = get(number, "/?x=1")
        assert status == 200
        assert page.startswith(b"<!doctype html>")


def test_the_demo_has_tls_where_it_has_a_certificate(here: Path) -> None:
    trustme.CA().issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(here / "server.pem")
    with start(here, "demo", "--port", "0", "--ssl-certfile", "server.pem") as process:
        assert process.output.startswith(f"open https://127.0.0.1:{port(process)} (rawws ")


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.2", "127.0.0.2")])
def test_the_demo_opens_its_page_in_a_browser(here: Path, host: str, reached: str) -> None:
    browser = here / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(0o755)
    with start(here, "demo", "--port", "0", "--host", host, "--open", env={"BROWSER": str(browser)}) as process:
        opened = here / "opened"
        eventually(lambda: opened.exists() and opened.read_text())
        assert opened.read_text() == f"http://{reached}:{port(process)}\n"
        if host == "0.0.0.0":
            assert get(port(process), "/healthz")[0] == 200


def test_serve_runs_an_asgi_application_or_what_makes_one(here: Path) -> None:
    (here / "web.py").write_text(ASGI)
    for options in (["web:app"], ["web:make", "--factory", "--root-path", "/at"]):
        with start(here, "serve", "--asgi", *options, "--lifespan", "off", "--port", "0") as process:
            assert "listening on http://127.0.0.1:" in process.output
            with urlopen(f"http://{LOOPBACK}:{port(process)}/x", timeout=60) as answer:
                assert answer.read() == (b"/at/x" if "--factory" in options else b"/x")


def test_the_probes_stand_beside_an_asgi_application(here: Path) -> None:
    (here / "web.py").write_text("import rawws\n\nhub = rawws.Hub()\n" + ASGI)
    with start(here, "serve", "--asgi", "web:app", "--lifespan", "off", "--probes", "--port", "0") as process:
        assert get(port(process), "/healthz") == get(port(process), "/readyz") == (200, b"ok\n")
        assert get(port(process), "/other") == (200, b"/other")
        status, text = get(port(process), "/metrics")
    assert status == 200
    for line in (
        b"rawws_sockets_accepted_total 4",
        b"rawws_hub_published_total 0",
        b'rawws_responses_total{status="200"} 3',
    ):
        assert b"\n" + line + b"\n" in text


def test_the_metrics_of_an_asgi_application_say_what_they_need(here: Path) -> None:
    (here / "web.py").write_text("import sys\n\nsys.modules['prometheus_client'] = None\n" + ASGI)
    line = fails(run(here, "serve", "--asgi", "web:app", "--probes"), 1)
    assert line.endswith(
        "--probes: metrics need prometheus-client, which is not installed: pip install 'rawws[metrics]'"
    )


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--asgi", "web:app"], 1, "rawws: the application did not start: no database\n"),
        (["--asgi", "web:number"], 1, "rawws: web:number: app is int, allowed is an ASGI application\n"),
        (["--asgi", "web:chat"], 1, "rawws: web:chat: app takes (ws), it is called with (scope, receive, send)\n"),
        (["--asgi", "web:fail", "--factory"], 1, "rawws: web:fail returned no application: ValueError: no settings"),
        (["web:app", "--factory"], 2, "--factory needs --asgi\n"),
        (["web:app", "--probes"], 2, "--probes needs --asgi\n"),
        (["--asgi", "web:app", "--subprotocols", "a", "--lifespan", "off"], 1, "the application's to decide\n"),
    ],
)
def test_an_asgi_application_that_cannot_be_served_is_told_in_one_line(
    here: Path, options: list[str], status: int, said: str
) -> None:
    (here / "web.py").write_text(ASGI)
    found = run(here, "serve", *options, "--port", "0")
    assert (found.returncode, found.stdout) == (status, "")
    assert said in found.stderr
    assert "Traceback" not in found.stderr
