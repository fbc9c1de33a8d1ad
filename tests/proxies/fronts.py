"""Proxies in front of a port: each the real program, with the configuration of its page in docs/run.

Only names, ports and paths are replaced in it. Each runs from a folder of its own, and is ended by its id.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import trustme

from rawws.sync import ClientConnection, connect
from tests.processes import LOOPBACK, ROOT, Process, eventually, find_installed, find_program, free_port

__all__ = ["PROXIES", "VISITOR", "Front", "Secret", "block", "caddy", "haproxy", "nginx", "replaced", "running"]

# Where clients come from: not from LOOPBACK, which is trusted as the proxy's address, and which Envoy does not tell.
VISITOR: Final = "127.0.0.2"

NGINX: Final = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
# One process has one pool of connections. The modules are those of the page and those that Debian enables by itself.
APACHE: Final = """
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog /dev/stderr
User www-data
Group www-data
Listen {address}
ServerLimit 1
StartServers 1
ThreadsPerChild 50
MaxRequestWorkers 50
{modules}
Include {folder}/site.conf
"""
APACHE_MODULES: Final = "mpm_event authz_core reqtimeout deflate filter ssl http2 headers proxy proxy_http"
# It makes a certificate by itself for an address of the loopback, too, by an authority of its own.
CADDY: Final = """
{
    admin off
    auto_https disable_redirects
    skip_install_trust
}
"""


class Secret(NamedTuple):
    """A certificate with its key in one file, and the authority that gave it."""

    chain: Path
    authority: Path

    @classmethod
    def made_in(cls, folder: Path) -> Secret:
        authority, made = trustme.CA(), cls(folder / "chain.pem", folder / "authority.pem")
        authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(made.chain))
        authority.cert_pem.write_to_path(str(made.authority))
        return made


class Front(NamedTuple):
    """A proxy: where it listens, and whom its clients trust (None where it has no TLS)."""

    port: int
    authority: Path | None
    # What it answers while the server is away; and whether an EventSource comes back, then.
    away: int
    comes_back: bool

    @property
    def host(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def scheme(self) -> str:
        return "http" if self.authority is None else "https"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    def context(self) -> ssl.SSLContext | None:
        """Return what a client needs to trust it."""
        return ssl.create_default_context(cafile=str(self.authority)) if self.authority else None

    def client(self, address: str = VISITOR) -> httpx.Client:
        """Return a client that connects from this address."""
        transport = httpx.HTTPTransport(verify=self.context() or False, local_address=address)
        return httpx.Client(transport=transport, base_url=self.origin, timeout=60)

    def get(self, path: str, address: str = VISITOR, **headers: str) -> httpx.Response:
        with self.client(address) as client:
            return client.get(path, headers=headers)

    def connect(self, path: str, origin: str | None = None) -> ClientConnection:
        """Open a WebSocket."""
        # Not by websockets.sync: its two threads read and write one TLS connection, and one of many never opens.
        url = f"{self.origin.replace('http', 'ws', 1)}{path}"
        return connect(url, ssl=self.context(), origin=origin, proxy=None, local_addr=(VISITOR, 0))


def block(page: str, language: str, number: int = 0) -> str:
    """Return a block of a page of docs/run."""
    text = (ROOT / "docs" / "run" / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found[number]


def replaced(text: str, places: Mapping[str, object]) -> str:
    """Put what is so here in the place of what is documented, each of which stands there once."""
    for documented, here in places.items():
        assert text.count(documented) == 1, documented
        text = text.replace(documented, str(here))
    return text


@contextmanager
def running(command: list[str | Path], port: int, **env: str) -> Iterator[Process]:
    """Run a proxy that listens on this port, and see that it lives to the end."""
    with Process(command, listens=port, env=env) as process:
        yield process
        assert process.poll() is None, process.output


@contextmanager
def nginx(folder: Path, upstream: int | Path, *lines: str, without: str = "") -> Iterator[Front]:
    """Run nginx in front of a port or a socket, with these lines more in its `location /`, or without one."""
    secret, port = Secret.made_in(folder), free_port()
    site = block("nginx.md", "nginx")
    assert without in site
    places = {
        "127.0.0.1:8765": f"unix:{upstream}" if isinstance(upstream, Path) else f"{LOOPBACK}:{upstream}",
        "listen 443": f"listen {LOOPBACK}:{port}",
        "/etc/ssl/example.com.pem": secret.chain,
        "/etc/ssl/example.com.key": secret.chain,
        "proxy_http_version 1.1;": "\n".join(["proxy_http_version 1.1;", *lines]),
    }
    (folder / "site.conf").write_text(replaced(site, places).replace(without, ""))
    # Its workers would be another user's, who may not enter this folder.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
    program = find_program("nginx", "apt-get install nginx-light")
    with running([program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"], port):
        yield Front(port, secret.authority, 502, comes_back=True)


@contextmanager
def haproxy(folder: Path, one: int | None, two: int | None = None, without: str = "") -> Iterator[Front]:
    """Run haproxy in front of two ports, or twice the same."""
    secret, port = Secret.made_in(folder), free_port()
    site = block("haproxy.md", "haproxy")
    assert without in site
    places = {
        "127.0.0.1:8765": f"{LOOPBACK}:{one}",
        "127.0.0.1:8766": f"{LOOPBACK}:{two or one}",
        "bind :443": f"bind {LOOPBACK}:{port}",
        "/etc/ssl/example.com.pem": secret.chain,
    }
    (folder / "haproxy.cfg").write_text(replaced(site, places).replace(without, ""))
    program = find_program("haproxy", "apt-get install haproxy")
    with running([program, "-db", "-f", folder / "haproxy.cfg"], port):
        yield Front(port, secret.authority, 503, comes_back=False)


@contextmanager
def apache(folder: Path, upstream: int) -> Iterator[Front]:
    """Run Apache in front of a port."""
    program = find_program("apache2", "apt-get install apache2-bin")
    secret, port = Secret.made_in(folder), free_port()
    places = {
        "127.0.0.1:8765": f"{LOOPBACK}:{upstream}",
        "*:443": f"{LOOPBACK}:{port}",
        "/etc/ssl/example.com.pem": secret.chain,
        "/etc/ssl/example.com.key": secret.chain,
    }
    (folder / "site.conf").write_text(replaced(block("apache.md", "apache"), places))
    found = "/usr/lib/apache2/modules"
    modules = "\n".join(f"LoadModule {name}_module {found}/mod_{name}.so" for name in APACHE_MODULES.split())
    address = f"{LOOPBACK}:{port}"
    (folder / "apache.conf").write_text(APACHE.format(folder=folder, address=address, modules=modules))
    with running([program, "-D", "FOREGROUND", "-f", folder / "apache.conf"], port):
        yield Front(port, secret.authority, 503, comes_back=False)


@contextmanager
def caddy(folder: Path, upstream: int, waits: str = "2s") -> Iterator[Front]:
    """Run Caddy in front of a port; `waits` is how long a request does for a server that is away."""
    program = find_program("caddy", "apt-get install caddy")
    port = free_port()
    places = {
        "127.0.0.1:8765": f"{LOOPBACK}:{upstream}",
        "example.com": f"https://{LOOPBACK}:{port}",
        "lb_try_duration 2s": f"lb_try_duration {waits}",
    }
    site = replaced(block("caddy.md", "caddyfile"), places)
    (folder / "Caddyfile").write_text(CADDY + site)
    command: list[str | Path] = [program, "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
    # Its certificates and its last configuration.
    homes = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with running(command, port, **homes) as process:
        process.wait_for(lambda output: "certificate obtained" in output, "it has its certificate")
        yield Front(port, folder / "caddy" / "pki" / "authorities" / "local" / "root.crt", 502, comes_back=True)


@contextmanager
def varnish(folder: Path, upstream: int) -> Iterator[Front]:
    """Run Varnish in front of a port."""
    program = find_program("varnishd", "apt-get install varnish")
    port = free_port()
    places = {'"127.0.0.1"': f'"{LOOPBACK}"', '"8765"': f'"{upstream}"'}
    (folder / "site.vcl").write_text(replaced(block("varnish.md", "vcl"), places))
    more = {":80": f"{LOOPBACK}:{port}", "/etc/varnish/rawws.vcl": folder / "site.vcl"}
    name, *options = replaced(block("varnish.md", "sh"), more).split()
    assert name == "varnishd"
    # In the foreground, as the user that starts it, with its files here.
    with running([program, "-F", "-j", "none", "-n", folder / "varnish", *options], port):
        yield Front(port, None, 503, comes_back=True)


@contextmanager
def traefik(folder: Path, upstream: int) -> Iterator[Front]:
    """Run Traefik in front of a port."""
    program = find_installed("traefik")
    secret, port = Secret.made_in(folder), free_port()
    static = {":443": f"{LOOPBACK}:{port}", "filename: /etc/traefik": f"filename: {folder}"}
    # Else it asks its maker's hosts for updates.
    quiet = "global:\n  checkNewVersion: false\n"
    (folder / "traefik.yaml").write_text(replaced(block("traefik.md", "yaml"), static) + quiet)
    places = {
        "127.0.0.1:8765": f"{LOOPBACK}:{upstream}",
        "/etc/ssl/example.com.pem": secret.chain,
        "/etc/ssl/example.com.key": secret.chain,
    }
    (folder / "rawws.yaml").write_text(replaced(block("traefik.md", "yaml", 1), places))
    front = Front(port, secret.authority, 502, comes_back=False)
    with running([program, f"--configFile={folder / 'traefik.yaml'}"], port):
        # It listens before it has read its second file, with a certificate that nobody trusts.
        eventually(lambda: knows_its_server(front))
        yield front


def knows_its_server(front: Front) -> bool:
    """Tell whether a proxy says of its server that it is away."""
    try:
        return front.get("/").status_code == front.away
    except httpx.ConnectError:
        return False


@contextmanager
def envoy(folder: Path, upstream: int) -> Iterator[Front]:
    """Run Envoy in front of a port."""
    program = find_installed("envoy")
    secret, port = Secret.made_in(folder), free_port()
    places = {
        "address: 0.0.0.0, port_value: 443": f"address: {LOOPBACK}, port_value: {port}",
        "address: 127.0.0.1, port_value: 8765": f"address: {LOOPBACK}, port_value: {upstream}",
        "/etc/ssl/example.com.pem": secret.chain,
        "/etc/ssl/example.com.key": secret.chain,
    }
    (folder / "envoy.yaml").write_text(replaced(block("envoy.md", "yaml"), places))
    # One thread has one pool of connections. Hot restarts would leave memory that Envoys share.
    options = ["--concurrency", "1", "--disable-hot-restart"]
    with running([program, "-c", folder / "envoy.yaml", *options], port):
        yield Front(port, secret.authority, 503, comes_back=False)


PROXIES: Final[dict[str, Callable[[Path, int], AbstractContextManager[Front]]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "apache": apache,
    "caddy": caddy,
    "varnish": varnish,
    "traefik": traefik,
    "envoy": envoy,
}
