"""The PROXY protocol of real proxies: haproxy with the configuration of its page, in each version, and Varnish."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.processes import LOOPBACK, Process, find_program, free_port
from tests.proxies.fronts import VISITOR, Front, Secret, block, replaced, running

PROGRAM: Final = block("haproxy.md", "python")
SITE: Final = block("haproxy.md", "haproxy", 1)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[int]:
    """Run the program of the page behind proxies of this machine."""
    (folder / "app.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "rawws", "serve", "app:routes", "--proxy-protocol", *options]
    port = free_port()
    more = ["--trusted-proxies", LOOPBACK, "--port", str(port)]
    # It listens when it says so: who tries its port says no header.
    with Process([*command, *more], cwd=folder) as process:
        process.wait_for(lambda output: "listening on" in output, "it listens")
        yield port


@contextmanager
def haproxy(folder: Path, upstream: int, header: str, bind: str = "", authority: Path | None = None) -> Iterator[Front]:
    """Run haproxy with the second configuration of its page, and this option of its servers."""
    port = free_port()
    places = {
        "127.0.0.1:8765": f"{LOOPBACK}:{upstream}",
        "127.0.0.1:8766": f"{LOOPBACK}:{upstream}",
        "bind :443": f"bind {LOOPBACK}:{port} {bind}",
    }
    (folder / "haproxy.cfg").write_text(replaced(SITE, places).replace("send-proxy-v2", header))
    program = find_program("haproxy", "apt-get install haproxy")
    with running([program, "-db", "-f", folder / "haproxy.cfg"], port):
        yield Front(port, authority, 503, comes_back=False)


@contextmanager
def varnish(folder: Path, upstream: int, version: int) -> Iterator[Front]:
    """Run Varnish with the configuration of its page, and PROXY headers of this version."""
    port = free_port()
    places = {'"127.0.0.1"': f'"{LOOPBACK}"', '"8765"': f'"{upstream}"; .proxy_header = {version}'}
    (folder / "site.vcl").write_text(replaced(block("varnish.md", "vcl"), places))
    program = find_program("varnishd", "apt-get install varnish")
    command: list[str | Path] = [program, "-F", "-j", "none", "-n", folder / "varnish", "-f", folder / "site.vcl"]
    with running([*command, "-a", f"{LOOPBACK}:{port}"], port):
        yield Front(port, None, 503, comes_back=True)


def check(front: Front, scheme: str) -> None:
    """Check that the server knows its client, and believes nothing that it says of itself."""
    forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "ws"}
    assert front.get("/", **forged).json() == {"address": VISITOR, "scheme": scheme}
    with front.connect("/echo", front.origin) as ws:
        ws.send("Grüße")
        assert ws.recv(timeout=60) == f"{VISITOR}: Grüße"


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
def test_the_header_of_haproxy_comes_before_http(tmp_path: Path, header: str) -> None:
    with serving(tmp_path) as port, haproxy(tmp_path, port, header) as front:
        check(front, "http")


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
def test_the_header_of_haproxy_comes_before_tls(tmp_path: Path, header: str) -> None:
    secret = Secret.made_in(tmp_path)
    with (
        serving(tmp_path, "--ssl-certfile", str(secret.chain)) as port,
        haproxy(tmp_path, port, header, authority=secret.authority) as front,
    ):
        check(front, "https")


def test_where_haproxy_ends_tls_its_header_says_so(tmp_path: Path) -> None:
    secret = Secret.made_in(tmp_path)
    bind = f"ssl crt {secret.chain}"
    with (
        serving(tmp_path) as port,
        haproxy(tmp_path, port, "send-proxy-v2-ssl proxy-v2-options crc32c,unique-id", bind, secret.authority) as front,
    ):
        check(front, "https")


@pytest.mark.parametrize("version", [1, 2])
def test_the_header_of_varnish_comes_before_http(tmp_path: Path, version: int) -> None:
    with serving(tmp_path) as port, varnish(tmp_path, port, version) as front:
        check(front, "http")
