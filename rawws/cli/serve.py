"""Serve: a handler to a running server, in this process or in several, until a signal (`serve` and `demo`)."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import os
import platform
import socket
import ssl
import sys
import threading
import webbrowser
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rawws import _twins
from rawws._version import __version__
from rawws.net.allocator import keep_freed_memory
from rawws.net.loops import loop_factory
from rawws.protocol.speedups import running_deflate
from rawws.server.run import until_signal
from rawws.server.server import serve
from rawws.server.shutdown import Drain

from .admin import admin_plan
from .arguments import LIMITS
from .loading import CommandError, as_application, as_handler, load_object
from .logs import begin_logging
from .reload import run_again
from .streams import complain, print_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rawws.server.options import ServerHandler
    from rawws.server.server import Server

    from .admin import AdminPlan
    from .joining import JoinedHubs
    from .supervisor import SupervisorChannel

__all__ = ["product", "run_server", "serve_application", "serve_demo", "tls_of"]

# What is entered before a server begins, in its loop; it gives what the server calls on SIGHUP.
Surroundings: TypeAlias = "Callable[[], AbstractAsyncContextManager[Callable[[], object]]]"

# After so many new objects the collector looks through the youngest.
COLLECTED = 10_000


def serve_application(options: argparse.Namespace) -> int:
    """Serve what MODULE:OBJECT names; return 0, or raise CommandError."""
    if options.reload:
        return run_again(options.words)
    sys.path.insert(0, str(Path.cwd()))
    admin = admin_plan(options)
    joined = _join_hubs(options)
    found = load_object(*options.target)
    target = ":".join(options.target)
    handler = as_application(found, target, options) if options.asgi else as_handler(found, target)
    given = {name: getattr(options, name) for name in (*LIMITS, "proxy_protocol", "engine") if name in options}
    if not options.compression:
        given["compression"] = None
    given["drain"] = Drain(grace=options.drain_grace, timeout=options.drain_timeout)
    scheme = "http" if options.asgi else "ws"
    return run_server(
        options,
        handler,
        lambda address: f"listening on {scheme}{'s' if options.ssl_certfile else ''}://{address}",
        given,
        joined,
        admin,
    )


def serve_demo(options: argparse.Namespace) -> int:
    """Serve the demo's page; return 0, or raise CommandError."""
    from rawws.demo import app  # noqa: PLC0415 - only this command needs it

    def announce(address: str) -> str:
        # Nobody can open the address that stands for all of a machine's.
        scheme = "https://" if options.ssl_certfile else "http://"
        url = scheme + address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        if options.open:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        return f"open {url}"

    return run_server(options, app.demo_routes(product()), announce, {})


def collect_seldom() -> None:
    """Have the garbage collector look less often, unless the application said that it is to look seldom or never.

    With the default of 700 it looks through the objects of thousands of connections while one publication goes to them.
    """
    first, *others = gc.get_threshold()
    if 0 < first < COLLECTED:
        gc.set_threshold(COLLECTED, *others)


def run_server(
    options: argparse.Namespace,
    handler: ServerHandler,
    announce: Callable[[str], str],
    given: dict[str, Any],
    joined: JoinedHubs | None = None,
    admin: AdminPlan | None = None,
    surroundings: Surroundings | None = None,
) -> int:
    """Serve until a signal; print one line for each address as soon as it can be reached."""
    collect_seldom()
    keep_freed_memory()
    begin_logging(options.log_level, as_json=options.log_json)
    given["access_log"] = options.access_log
    uds = getattr(options, "uds", None)
    if uds:
        given["path"], given["mode"] = uds, options.uds_mode
    elif getattr(options, "fd", None):
        given["sock"] = [_inherited(number) for number in options.fd]
    else:
        given["host"] = options.host or ["127.0.0.1"]
        given["port"] = 8765 if options.port is None else options.port
    tls = tls_of(options)
    if tls is not None:
        # Once here: with workers, a mistake is told once.
        tls()
        given["ssl"] = tls

    def show(running: Server) -> None:
        for sock in running.sockets:
            print_line(f"{announce(_address(sock.getsockname()))} ({product()}; Ctrl-C ends it)")

    if joined is None or joined.folder is None:
        _live(handler, given, show, admin and admin.listen, surroundings)
    else:
        _serve_shared(joined, joined.folder, options.workers, handler, given, announce, admin, surroundings)
    return 0


def tls_of(options: argparse.Namespace) -> Callable[[], ssl.SSLContext] | None:
    """Return what reads the certificate that the options name, None for none. Calling it raises CommandError."""
    if not getattr(options, "ssl_certfile", None):
        return None
    # Only `serve` has variables for all of its options; the password is not for a command line in any command.
    password = options.ssl_keyfile_password or os.environ.get("RAWWS_SSL_KEYFILE_PASSWORD") or None
    return functools.partial(_tls, options.ssl_certfile, options.ssl_keyfile, password, options.ssl_ca_certs)


def _live(
    handler: ServerHandler,
    given: dict[str, Any],
    show: Callable[[Server], None],
    look_in: Callable[[Server], AbstractAsyncContextManager[None]] | None = None,
    surroundings: Surroundings | None = None,
) -> None:
    """Serve in this process; `look_in` is entered meanwhile, and `surroundings` before."""

    async def main() -> None:
        async with nullcontext() if surroundings is None else surroundings() as reload:
            await live(reload)

    async def live(reload: Callable[[], object] | None) -> None:
        try:
            running = await serve(handler, **given)
        except OSError as error:
            path = given.get("path")
            place = path or _place(given)
            reason = _reason_of_path(error) if path else _reason(error)
            raise CommandError(f"cannot listen on {place}: {reason}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        running.on_reload = reload
        async with running, nullcontext() if look_in is None else look_in(running):
            await until_signal(running, lambda: show(running))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def _join_hubs(options: argparse.Namespace) -> JoinedHubs | None:
    """Have the hubs that the application makes be joined as it is told; None where nothing joins them."""
    if options.workers == 1 and options.backplane is None:
        return None
    from .folders import make_folder  # noqa: PLC0415 - only workers need it
    from .joining import JoinedHubs  # noqa: PLC0415 - the same

    return JoinedHubs(options.backplane, make_folder() if options.workers > 1 else None)


def _serve_shared(
    joined: JoinedHubs,
    folder: Path,
    count: int,
    handler: ServerHandler,
    given: dict[str, Any],
    announce: Callable[[str], str],
    admin: AdminPlan | None,
    surroundings: Surroundings | None,
) -> None:
    """Serve in several processes on one port; one more may be a broker, and one answers `admin`."""
    from .supervisor import ReservedPort, StartError, Supervisor  # noqa: PLC0415 - not on every system

    brokers = joined.fork()

    def work(channel: SupervisorChannel) -> None:
        try:
            if channel.number == count + brokers and admin is not None:
                admin.run(folder, count, channel)
            elif channel.number == count:
                joined.run_broker(channel)
            else:
                look_in = None if admin is None else functools.partial(admin.offer, folder, channel)
                _live(handler, given, channel.ready, look_in, surroundings)
        except CommandError as error:
            complain(str(error))
            raise SystemExit(1) from None
        except asyncio.CancelledError:
            raise SystemExit(130) from None

    try:
        with ExitStack() as held:
            if admin is not None:
                admin = held.enter_context(admin.reserve())
            reserved = held.enter_context(ReservedPort(given["host"], given["port"]))
            given |= {"port": reserved.port, "reuse_port": True}
            addresses = [_address(sock.getsockname()) for sock in reserved.sockets]

            def show() -> None:
                if admin is not None:
                    admin.announce(admin.port)
                for address in addresses:
                    print_line(f"{announce(address)} ({count} workers; {product()}; Ctrl-C ends it)")

            processes = count + brokers + bool(admin)
            Supervisor(processes, work, show, reloads="ssl" in given or surroundings is not None).run()
    except OSError as error:
        raise CommandError(f"cannot listen on {_place(given)}: {_reason(error)}") from error
    except (StartError, RuntimeError) as error:
        raise CommandError(str(error)) from error


def _address(name: Any) -> str:
    """Write what `getsockname` returned as it stands in a URL."""
    if isinstance(name, (str, bytes)):
        return name if isinstance(name, str) else name.decode(errors="replace")
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    """Describe in a few words why it cannot listen, and what helps."""
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; --port chooses another port"
    if error.errno == errno.EACCES:
        return "this user may not; ports from 1024 on need no privilege"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.strerror or str(error)


def _reason_of_path(error: OSError) -> str:
    """Describe in a few words why there can be no unix socket."""
    # The socket of a server that is gone is taken over.
    taken = error.errno == errno.EADDRINUSE and error.strerror == os.strerror(errno.EADDRINUSE)
    return "that is there, and no socket" if taken else error.strerror or str(error)


def _place(given: dict[str, Any]) -> str:
    """Name where it was to listen."""
    if "sock" in given:
        return " and ".join(f"descriptor {sock.fileno()}" for sock in given["sock"])
    return f"{' and '.join(given['host'])}, port {given['port']}"


def _inherited(number: int) -> socket.socket:
    """Return the socket that whoever started this process left open: systemd from 3 on."""
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise CommandError(f"cannot listen on descriptor {number}: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockname():
        sock.detach()
        raise CommandError(f"cannot listen on descriptor {number}: it is no stream socket with an address")
    return sock


def _tls(certfile: str, keyfile: str | None, password: str | None, authorities: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Browsers offer HTTP/2 first, and a WebSocket of this server is HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    files = f"certificate {certfile}" + (f" with key {keyfile}" if keyfile else "")

    def tell() -> str:
        # Without it, OpenSSL would ask on the terminal.
        if password is None:
            raise CommandError(f"cannot use {files}: the key is encrypted, --ssl-keyfile-password decrypts it")
        return password

    try:
        context.load_cert_chain(certfile, keyfile, tell)
        if authorities:
            files = f"authorities {authorities}"
            context.load_verify_locations(authorities)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        allowed = "certificates" if authorities and files.startswith("authorities") else "a certificate and its key"
        raise CommandError(f"cannot use {files}: {error.reason or error} (allowed: PEM, {allowed})") from error
    except OSError as error:
        raise CommandError(f"cannot read {files}: {error.strerror}") from error
    return context


def product() -> str:
    """Return what runs here: the version, the twin, the loop, what compresses, and the Python."""
    loop = "uvloop" if loop_factory() else "asyncio"
    runs = f"{loop}, {running_deflate()} and Python {platform.python_version()}"
    return f"rawws {__version__} ({_twins.running()}) on {runs}"
