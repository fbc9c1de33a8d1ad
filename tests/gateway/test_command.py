"""`rawws gateway`: a file to begin with, every mistake in it, a running gateway, and what it reads again."""

from __future__ import annotations

import os
import re
import signal
import stat
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pusher
import pytest
from pusher.errors import PusherBadStatus
from websockets.sync.client import connect

from rawws.cli import gateway as command
from rawws.cli.loading import CommandError
from rawws.cli.main import parse, parser
from rawws.gateway.config import ConfigError
from rawws.gateway.loading import read_config
from rawws.gateway.main import new_gateway
from tests.cli.commands import fails, port, run, start
from tests.gateway.running import APP, KEY, SECRET, app_file
from tests.processes import LOOPBACK, eventually, free_port


def library(at: int, app: str = APP) -> pusher.Pusher:
    return pusher.Pusher(app_id=app, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=at)


def test_a_file_to_begin_with_is_right_and_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    assert "gateway.toml --init writes one" in fails(run(tmp_path, "gateway", "gateway.toml"), 1)
    assert run(tmp_path, "gateway", "gateway.toml", "--init").stdout.startswith("gateway.toml is written")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    assert "stays as it is" in fails(run(tmp_path, "gateway", "gateway.toml", "--init"), 1)
    assert file.read_text() == before
    assert (
        run(tmp_path, "gateway", "gateway.toml", "--check").stdout
        == "gateway.toml is right: of [[app]] it has 1, of [[api]] 0\n"
    )
    assert "cannot write" in fails(run(tmp_path, "gateway", "no/such/folder", "--init"), 1)
    secrets = [app.keys[0].secret for app in (read_config(before).apps[0], read_config(before).apps[0])]
    assert len(secrets[0]) == 40
    # What stands there as a comment is right, too.
    whole = "\n".join(line.removeprefix("# ") if "= " in line or "[[" in line else line for line in before.splitlines())
    config = read_config(whole)
    assert (config.apps[0].speaks_rawws, config.apis[0].path) == (True, "/prod")
    # As tokens are made on the page of rawws.js at a gateway.
    assert config.apps[0].jwt is not None
    assert config.apps[0].jwt.audience == "gateway"


def test_every_mistake_is_told_with_its_key_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(app_file('colour = "red"', head='[gateway]\nlisten = ["x"]'))
    for options in (["--check"], []):
        found = run(tmp_path, "gateway", "gateway.toml", *options)
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.splitlines()[1:] == [
            "  gateway.listen[0]: it is 'x', allowed is HOST:PORT",
            f"  app[0].colour: there is no such key, allowed are {found.stderr.splitlines()[2].partition('are ')[2]}",
        ]


@pytest.mark.parametrize(
    ("head", "options", "reason"),
    [
        ('backplane = "none"', ["--workers", "2"], 'gateway.backplane is "none", needed for several workers is'),
        ('admin = "0.0.0.0:9400"', [], "gateway.admin: 0.0.0.0 can be reached from other machines"),
        ('admin = "127.0.0.1:9400"\nadmin_key = "short"', [], "gateway.admin: "),
        ('backplane = "redis+sentinel://127.0.0.1"', [], "gateway.backplane: "),
    ],
)
def test_what_cannot_be_run_is_told(tmp_path: Path, head: str, options: list[str], reason: str) -> None:
    (tmp_path / "gateway.toml").write_text(app_file(head=f"[gateway]\n{head}"))
    for more in ([], ["--check"]):
        assert reason in fails(run(tmp_path, "gateway", "gateway.toml", *options, *more), 1)


@pytest.mark.parametrize(
    ("said", "options", "engine"),
    [("asyncio", [], "asyncio"), ("epoll", [], "epoll"), ("epoll", ["--engine", "asyncio"], "asyncio")],
)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_both_ports_are_of_the_engine_that_is_named(
    tmp_path: Path, said: str, options: list[str], engine: str, workers: list[str]
) -> None:
    head = f'[gateway]\nbackplane = "workers"\napi_listen = ["127.0.0.1:0"]\nengine = "{said}"'
    (tmp_path / "gateway.toml").write_text(app_file(head=head))
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0", *options, *workers) as process:
        api = int(re.findall(r"HTTP APIs at \S+:(\d+)", process.output)[0])
        with connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7") as ws:
            assert "connection_established" in str(ws.recv())
            assert library(api).channels_info() == {"channels": {}}
            serving = children_of(process.pid) if workers else [process.pid]
            # The broker that joins two workers is a process, too, on an engine of its own.
            assert [listens_by(pid) for pid in serving].count(engine) >= (2 if workers else 1)


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listens_by(pid: int) -> str:
    """Return the engine of the listening sockets of a process: our own is an epoll within that of the loop."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = {f"socket:[{line[9]}]" for line in lines if line[3] == "0A"}
    watched = {each.name: each.read_text().split() for each in Path(f"/proc/{pid}/fdinfo").iterdir()}
    targets = {fd: {words[n + 1] for n, word in enumerate(words) if word == "tfd:"} for fd, words in watched.items()}
    inner = {fd for fds in targets.values() for fd in fds if targets.get(fd)}
    found = {str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for each in inner for fd in targets[each]}
    return "epoll" if found & listening else "asyncio"


def test_an_engine_that_there_is_not_is_told(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    for value in ("kqueue", ""):
        file.write_text(app_file(head=f'[gateway]\nengine = "{value}"'))
        told = run(tmp_path, "gateway", "gateway.toml", "--check").stderr
        assert told.splitlines()[1:] == [f"  gateway.engine: it is {value!r}, allowed is asyncio or epoll"]
    file.write_text(app_file())
    assert "invalid choice: 'kqueue'" in fails(run(tmp_path, "gateway", "gateway.toml", "--engine", "kqueue"), 2)


def test_an_engine_that_this_system_has_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.epoll")
    reason = "allowed on Linux only: this system has no epoll"
    with pytest.raises(ConfigError, match=f"^gateway.engine: it is 'epoll', {reason}$"):
        read_config(app_file(head='[gateway]\nengine = "epoll"'))
    (tmp_path / "gateway.toml").write_text(app_file())
    for more in ([], ["--check"]):
        with pytest.raises(CommandError, match=f"^engine is 'epoll', {reason}$"):
            command.run_gateway(
                parse(parser(), ["gateway", str(tmp_path / "gateway.toml"), "--engine", "epoll", *more])
            )


def test_no_log_shows_the_secret_in_the_url_of_a_hook(tmp_path: Path) -> None:
    came = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library has it
            pass

    with HTTPServer((LOOPBACK, 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        hook = f'[[app.hook]]\nurl = "http://{LOOPBACK}:{receiver.server_port}/hook?key=hidden"'
        (tmp_path / "gateway.toml").write_text(app_file(hook))
        with start(tmp_path, "gateway", "gateway.toml", "--port", "0", "--log-level", "debug") as process:
            with connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7") as ws:
                ws.send('{"event": "pusher:subscribe", "data": {"channel": "room"}}')
                assert came.wait(60)
            process.stop()
            assert "drained" in process.output
            assert "hidden" not in process.output
        receiver.shutdown()


def test_a_gateway_runs_and_reads_its_file_again(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    admin = free_port()
    head = f'[gateway]\nlisten = ["127.0.0.1:0"]\nadmin = "127.0.0.1:{admin}"'
    file.write_text(app_file(head=head))
    with start(tmp_path, "gateway", "gateway.toml") as process:
        at = port(process)
        assert library(at).channels_info() == {"channels": {}}
        for probe in ("healthz", "readyz", "metrics"):
            with urlopen(f"http://127.0.0.1:{admin}/{probe}") as answer:
                assert answer.status == 200
        file.write_text(app_file(head=head).replace('id = "3"', 'id = "4"').replace("listen", "lissen"))
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for(lambda output: "the configuration stays as it was" in output, "it refuses the mistake")
        assert "gateway.lissen: there is no such key, did you mean listen?" in process.output
        assert library(at).channels_info() == {"channels": {}}
        file.write_text(app_file(head=head.replace(":0", ":1")).replace('id = "3"', 'id = "4"'))
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for(lambda output: "the configuration was loaded again" in output, "it reads the file again")
        assert "gateway.listen was changed, and needs a restart" in process.output
        assert library(at, "4").channels_info() == {"channels": {}}
        with pytest.raises(PusherBadStatus, match="404"):
            library(at).channels_info()


def test_workers_read_the_file_again_too(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    head = '[gateway]\nbackplane = "workers"'
    file.write_text(app_file(head=head))
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0", "--workers", "2") as process:
        file.write_text(app_file(head=head).replace('id = "3"', 'id = "4"'))
        os.kill(process.pid, signal.SIGHUP)
        eventually(lambda: process.output.count("the configuration was loaded again") == 2)
        assert [library(port(process), "4").channels_info() for _ in range(4)] == [{"channels": {}}] * 4


def test_a_handshake_that_may_take_longer_needs_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "gateway.toml"
    api = '[[api]]\nid = "chat"\npath = "/prod"\ncredentials = [{ key = "k", secret = "s" }]\n'
    connect = '[[api.route]]\nkey = "$connect"\nurl = "http://h/"\ntimeout = 5'
    gateway = new_gateway(read_config(app_file()))
    for text, told in ((api, []), (api + connect, ["handshakes end after 10 s as before"]), (api, [])):
        file.write_text(app_file() + text)
        caplog.clear()
        command.reload(gateway, file)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [warning.partition(":")[0] for warning in warnings] == told


def test_a_reload_in_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "gateway.toml"
    gateway = new_gateway(read_config(app_file()))
    file.write_text(app_file(head='[gateway]\nprefix = "other"\nengine = "asyncio"'))
    caplog.set_level("INFO", "rawws.gateway")
    command.reload(gateway, file)
    file.write_text("[")
    command.reload(gateway, file)
    assert gateway.config.prefix == "other"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "ERROR"]
    assert caplog.messages[:2] == [f"gateway.{key} was changed, and needs a restart" for key in ("prefix", "engine")]
    caplog.clear()
