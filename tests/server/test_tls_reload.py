"""Certificates that are loaded again: new connections get the new one, broken files change nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

import rawws
from tests.cli.commands import port, start
from tests.processes import Process, eventually, free_port
from tests.server.peers import Logged, serve

AUTHORITY = trustme.CA()
LOOPBACK = "127.0.0.1"


def write(path: Path, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> int:
    """Issue a certificate into a file, in one step, and return its serial number."""
    issued = AUTHORITY.issue_cert(LOOPBACK, "localhost", key_type=key_type)
    issued.private_key_and_cert_chain_pem.write_to_path(path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)
    found = ssl._ssl._test_decode_cert(write_first(path, issued))  # type: ignore[attr-defined]
    return int(found["serialNumber"], 16)


def write_first(path: Path, issued: trustme.LeafCert) -> str:
    first = path.with_suffix(".crt")
    issued.cert_chain_pems[0].write_to_path(first)
    return str(first)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def maker(path: Path) -> Callable[[], ssl.SSLContext]:
    def make() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        return context

    return make


async def shown(address: tuple[str, int], name: str = "localhost") -> int:
    """Return the serial number of the certificate that a new connection gets; an address as `name` goes without SNI."""
    _, writer = await asyncio.open_connection(*address[:2], ssl=trusting(), server_hostname=name)
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return int(serial, 16)


@pytest.mark.parametrize("name", ["localhost", LOOPBACK])
@pytest.mark.parametrize("key_type", trustme.KeyType)
async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    name: str, key_type: trustme.KeyType, tmp_path: Path
) -> None:
    path = tmp_path / "both.pem"
    first = write(path)
    async with serve(echo, ssl=maker(path)) as server:
        address = server.sockets[0].getsockname()
        assert await shown(address, name) == first
        async with rawws.connect(f"wss://{LOOPBACK}:{address[1]}", ssl=trusting()) as old:
            for _ in range(2):
                new = write(path, key_type)
                assert await shown(address, name) != new
                server.reload_tls()
                assert await shown(address, name) == new
            await old.send("still here")
            assert await old.recv() == "still here"


async def test_a_context_may_be_given_instead(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    write(path)
    async with serve(echo, ssl=maker(path)()) as server:
        new = write(path)
        server.reload_tls(maker(path)())
        assert await shown(server.sockets[0].getsockname()) == new
        assert not server.reloads_tls


@pytest.mark.parametrize("broken", ["", "no certificate", "half"])
async def test_a_broken_certificate_raises_and_the_old_one_stays(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    first = write(path)
    async with serve(echo, ssl=maker(path)) as server:
        path.write_text(path.read_text()[:700] if broken == "half" else broken)
        with pytest.raises(ssl.SSLError):
            server.reload_tls()
        path.unlink()
        with pytest.raises(FileNotFoundError):
            server.reload_tls()
        assert await shown(server.sockets[0].getsockname()) == first


async def test_a_hangup_with_a_broken_certificate_is_logged(logged: Logged, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    first = write(path)
    async with serve(echo, ssl=maker(path)) as server:
        path.write_text("broken")
        server.on_hangup()
        logged.take("the new certificate cannot be used, the old one stays", ssl.SSLError)
        assert await shown(server.sockets[0].getsockname()) == first


async def test_what_cannot_be_loaded_again_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    write(path)
    async with serve(echo) as server:
        with pytest.raises(rawws.LocalProtocolError, match="there is nothing to load, needed is TLS"):
            server.reload_tls()
        with pytest.raises(rawws.LocalProtocolError, match="there is nothing to load, needed is TLS"):
            server.reload_tls(maker(path)())
    chooses = maker(path)()
    chooses.sni_callback = lambda *_: None
    async with serve(echo, ssl=chooses) as server:
        with pytest.raises(rawws.LocalProtocolError, match="has an sni_callback, which chooses certificates itself"):
            server.reload_tls(maker(path)())


def test_ssl_is_a_context_or_a_function() -> None:
    with pytest.raises(TypeError, match=r"ssl is str, allowed are an ssl\.SSLContext, a function and None"):
        serve(echo, ssl="both.pem")


# -- by SIGHUP

PROGRAM = """
import pathlib, ssl, sys
import rawws

async def handler(ws):
    await ws.recv()

def make():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[2])
    return context

rawws.run(handler, "127.0.0.1", int(sys.argv[1]), ssl=make)
"""


def serial(number: int) -> int:
    return asyncio.run(shown((LOOPBACK, number)))


def test_run_loads_the_certificate_again_on_sighup(tmp_path: Path) -> None:
    path, script, number = tmp_path / "both.pem", tmp_path / "program.py", free_port()
    script.write_text(PROGRAM)
    write(path)
    with Process([sys.executable, script, str(number), str(path)], listens=number) as process:
        new = write(path)
        os.kill(process.pid, signal.SIGHUP)
        eventually(lambda: serial(number) == new)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_loads_the_certificate_again_on_sighup(workers: str, tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("async def echo(ws):\n    await ws.recv()\n")
    path = tmp_path / "both.pem"
    old = write(path)
    options = ["--port", "0", "--workers", workers, "--ssl-certfile", str(path)]
    with start(tmp_path, "serve", "chat:echo", *options) as process:
        number = port(process)
        assert serial(number) == old
        path.write_text("broken")
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for(lambda text: text.count("the old one stays") == int(workers), "the log")
        assert serial(number) == old
        new = write(path)
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for(lambda text: text.count("the certificate was loaded again") == int(workers), "the log")
        assert {serial(number) for _ in range(8)} == {new}
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: process.poll() == 0)


def test_without_a_certificate_sighup_ends_the_command_as_ever(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("async def echo(ws):\n    await ws.recv()\n")
    with start(tmp_path, "serve", "chat:echo", "--port", "0") as process:
        os.kill(process.pid, signal.SIGHUP)
        eventually(lambda: process.poll() == -signal.SIGHUP)


def test_the_command_takes_the_options_of_the_end(tmp_path: Path) -> None:
    program = (
        "import asyncio\n\nasync def stay(ws):\n    print('it stays', flush=True)\n    await asyncio.sleep(3600)\n"
    )
    (tmp_path / "chat.py").write_text(program)
    options = ["--port", "0", "--drain-grace", "0.1", "--drain-timeout", "0.2", "--max-lifetime", "3600"]
    with start(tmp_path, "serve", "chat:stay", *options) as process:
        code = f"import websockets.sync.client as c; ws = c.connect('ws://127.0.0.1:{port(process)}'); ws.recv()"
        client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        try:
            process.wait_for(lambda text: "it stays" in text, "the connection")
            os.kill(process.pid, signal.SIGTERM)
            process.wait_for(lambda text: "drained in " in text, "the end of the drain")
            eventually(lambda: process.poll() == 0)
            assert "1 handlers are left after 0.2 s, and aborted" in process.output
        finally:
            client.kill()
            client.wait()
