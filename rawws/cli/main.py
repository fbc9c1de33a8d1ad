"""The command line: words to a running server, and every mistake to one line (`python -m rawws`)."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import errno
import functools
import importlib
import inspect
import logging
import os
import platform
import shutil
import ssl
import sys
import tempfile
import threading
import traceback
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

from rawws import _twins
from rawws._version import __version__
from rawws.cli import terminal
from rawws.http.routes import Routes
from rawws.net.handlers import Handler, check_arguments, check_handler
from rawws.net.loops import loop_factory
from rawws.server.options import ServerHandler
from rawws.server.run import until_signal
from rawws.server.server import Server, serve
from rawws.server.shutdown import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawws.topics.backplane import Backplane
    from rawws.topics.shared import SharedBackplane


__all__ = ["LIMITS", "main", "parser"]

SERVE = """\
Run a handler of yours. MODULE:OBJECT names it: the module as you would import
it from this directory, and in it a coroutine function that takes the
connection, or a rawws.Handler (the class or an instance). With --asgi, it names
an ASGI application: of Starlette, FastAPI, Django, or any other.
"""

SERVE_EXAMPLES = """\
examples:
  If chat.py holds `async def chat(ws): ...`, this answers at ws://127.0.0.1:8765
    {prog} serve chat:chat

  On every address of this machine, for the pages of another site:
    {prog} serve chat:chat --host 0.0.0.0 --host :: --origins https://a.example

  With TLS, at wss://
    {prog} serve chat:chat --port 443 --ssl-certfile cert.pem --ssl-keyfile key.pem

  On a unix socket, behind a proxy on this machine:
    {prog} serve chat:chat --uds /run/chat.sock

  One process for each core; what one of them holds in memory, the others do not:
    {prog} serve chat:chat --workers auto

  An ASGI application, for example of FastAPI, over HTTP and WebSockets:
    {prog} serve --asgi app:app
"""

DEMO = "Run a server with one page: an echo and a chat room over WebSockets, and a feed by events and by long polling."

STATUS = """
Ctrl-C and SIGTERM close every connection properly and exit with 0; a second
Ctrl-C does not wait (130). SIGHUP reads the certificate again. What fails exits
with 1, a wrong option with 2.
"""


class CommandError(Exception):
    """What the command cannot do, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for what failed, 130 for a second Ctrl-C (argparse exits with 2, for usage)."""
    words = parser()
    options = words.parse_args(arguments)
    if getattr(options, "uds", None) and (options.host or options.port is not None):
        words.error("--uds stands for --host and --port, and not beside them")
    if getattr(options, "uds", None) and options.workers > 1:
        words.error("--workers shares a port, not a unix socket")
    if getattr(options, "ssl_keyfile", None) and not options.ssl_certfile:
        words.error("--ssl-keyfile needs --ssl-certfile")
    if getattr(options, "factory", False) and not options.asgi:
        words.error("--factory needs --asgi")
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except CommandError as error:
        print(f"rawws: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C before it serves, or a second one
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    prog = "rawws" if Path(sys.argv[0]).stem == "rawws" else "python -m rawws"
    as_written = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(prog=prog, description="A WebSocket server, and a client.", allow_abbrev=False)
    whole.add_argument("--version", action=ShowVersion, nargs=0, help="show the version, and what it runs on")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "serve",
        usage=f"{prog} serve MODULE:OBJECT [options]",
        help="run a handler of yours: `async def handler(ws): ...`, or a rawws.Handler",
        description=SERVE,
        epilog=SERVE_EXAMPLES.format(prog=prog) + STATUS,
        formatter_class=as_written,
        allow_abbrev=False,
    )
    run.set_defaults(command=_serve)
    run.add_argument("target", metavar="MODULE:OBJECT", type=_target, help="for example chat:chat")
    _add_asgi(run)
    _add_where(run)
    run.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="processes on one port; auto is one for each core"
    )
    _add_tls(run)
    _add_limits(run)
    _add_end(run)

    demo = commands.add_parser(
        "demo",
        help="run a page with an echo, a chat room and a feed, to see it work",
        description=DEMO,
        allow_abbrev=False,
    )
    demo.set_defaults(command=_demo)
    _add_where(demo, unix=False)
    demo.add_argument("--open", action="store_true", help="open the page in a browser")
    terminal.add_commands(commands, prog)
    return whole


def _add_asgi(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ASGI")
    group.add_argument("--asgi", action="store_true", help="MODULE:OBJECT is an ASGI application")
    group.add_argument("--factory", action="store_true", help="it is a function that returns the application")
    group.add_argument("--root-path", default="", metavar="PATH", help="where a proxy mounted the application")
    group.add_argument(
        "--lifespan", choices=("auto", "on", "off"), default="auto", help="whether it has a lifespan (default: auto)"
    )


def _add_where(parser: argparse.ArgumentParser, *, unix: bool = True) -> None:
    where = parser.add_argument_group("where it listens")
    where.add_argument("--host", action="append", help="name or address; may be repeated (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, help="0 takes a free one (default: 8765)")
    if unix:
        where.add_argument("--uds", metavar="PATH", help="a unix socket, instead of host and port")
        where.add_argument("--uds-mode", type=_mode, metavar="MODE", help="its permissions, in octal, such as 660")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error", "critical"),
        default="info",
        help="the least that is logged, on standard error (default: %(default)s)",
    )
    parser.add_argument("--access-log", action="store_true", help="log each HTTP response")


def _mode(text: str) -> int:
    if len(text) > 4 or text.strip("01234567") or not text or int(text, 8) > 0o777:
        raise argparse.ArgumentTypeError(f"{text!r} are no permissions, allowed are 0 to 777")
    return int(text, 8)


def _add_tls(parser: argparse.ArgumentParser) -> None:
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--ssl-certfile", metavar="FILE", help="the certificate with its chain, in PEM; turns TLS on")
    tls.add_argument("--ssl-keyfile", metavar="FILE", help="its private key, if it is not in the same file")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add options of `rawws.serve` under their own names; what is not given is left to its defaults."""
    group = parser.add_argument_group("who may connect, how much and how long")
    defaults = inspect.signature(serve).parameters

    for name, (kind, metavar, text) in LIMITS.items():
        default = defaults[name].default
        shown = f"{text} (default: {default})" if default else text
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=metavar, default=argparse.SUPPRESS, help=shown
        )
    group.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compress messages for those who ask for it (default: yes)",
    )


def _add_end(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it ends")
    plan = Drain()
    for name, text in (
        ("grace", "how long it goes on, not ready, before it takes no new connections"),
        ("timeout", "how long connections and handlers may take to end after that"),
    ):
        group.add_argument(
            f"--drain-{name}",
            type=_seconds,
            metavar="SECONDS",
            default=getattr(plan, name),
            help=f"{text} (default: %(default)g)",
        )


def _target(text: str) -> tuple[str, str]:
    module, colon, name = text.partition(":")
    if not (colon and module and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE:OBJECT, for example chat:chat")
    return module, name


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 to 999, or auto")
    return int(text)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _origins(text: str) -> str | list[str | None]:
    # None: programs that are no browsers name no site, and could name any.
    return "*" if text == "*" else [*_words(text), None]


def _size(text: str) -> int:
    number, factor = text.lower(), 1
    if number[-1:] in {"k", "m"}:
        number, factor = number[:-1], 1024 if number[-1] == "k" else 1024 * 1024
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, for example 65536, 64k or 1m")
    return int(number) * factor


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _rate(text: str) -> float:
    try:
        return _seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds, more than 0")
    return seconds


def _seconds_or_off(text: str) -> float | None:
    return None if text == "off" else _seconds(text)


def _serve(options: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path.cwd()))
    shared = _offer_broker() if options.workers > 1 else None
    found = _load(*options.target)
    target = ":".join(options.target)
    handler = _application(found, target, options) if options.asgi else _handler(found, target)
    given = {name: getattr(options, name) for name in LIMITS if name in options}
    if not options.compression:
        given["compression"] = None
    given["drain"] = Drain(grace=options.drain_grace, timeout=options.drain_timeout)
    scheme = "http" if options.asgi else "ws"
    return _run(
        options,
        handler,
        lambda address: f"listening on {scheme}{'s' if options.ssl_certfile else ''}://{address}",
        given,
        shared,
    )


def _demo(options: argparse.Namespace) -> int:
    from rawws.demo import app  # noqa: PLC0415 - only this command needs it

    def announce(address: str) -> str:
        # Nobody can open the address that stands for all of a machine's.
        url = "http://" + address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        if options.open:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        return f"open {url}"

    return _run(options, app.demo_routes(_product()), announce, {})


def _run(
    options: argparse.Namespace,
    handler: ServerHandler,
    announce: Callable[[str], str],
    given: dict[str, Any],
    shared: SharedBackplane | None = None,
) -> int:
    """Serve until a signal; print one line for each address as soon as it can be reached."""
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given["access_log"] = options.access_log
    uds = getattr(options, "uds", None)
    if uds:
        given["path"], given["mode"] = uds, options.uds_mode
    else:
        given["host"] = options.host or ["127.0.0.1"]
        given["port"] = 8765 if options.port is None else options.port
    if getattr(options, "ssl_certfile", None):
        # Once here: with workers, a mistake is told once.
        _tls(options.ssl_certfile, options.ssl_keyfile)
        given["ssl"] = functools.partial(_tls, options.ssl_certfile, options.ssl_keyfile)

    def show(running: Server) -> None:
        for sock in running.sockets:
            print(announce(_address(sock.getsockname())), f"({_product()}; Ctrl-C ends it)", flush=True)

    if shared is None:
        _live(handler, given, show)
    else:
        _serve_shared(shared, options.workers, handler, given, announce)
    return 0


def _live(handler: ServerHandler, given: dict[str, Any], show: Callable[[Server], None]) -> None:
    """Serve in this process."""

    async def main() -> None:
        try:
            running = await serve(handler, **given)
        except OSError as error:
            path = given.get("path")
            place = path or f"{' and '.join(given['host'])}, port {given['port']}"
            reason = _reason_of_path(error) if path else _reason(error)
            raise CommandError(f"cannot listen on {place}: {reason}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        async with running:
            show(running)
            await until_signal(running)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def _offer_broker() -> SharedBackplane:
    """Have the hubs that the application makes be joined by a broker, for which there is a folder from now on."""
    from rawws.topics.shared import SharedBackplane, share  # noqa: PLC0415 - only workers need it

    def make(name: str) -> Backplane:
        from rawws.backplanes.broker import BrokerBackplane  # noqa: PLC0415 - only hubs need it

        return BrokerBackplane(path, name)

    # Nobody else may enter it.
    folder = tempfile.mkdtemp(prefix="rawws-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/broker"
    shared = SharedBackplane(path, make)
    share(shared)
    return shared


def _serve_shared(
    shared: SharedBackplane, count: int, handler: ServerHandler, given: dict[str, Any], announce: Callable[[str], str]
) -> None:
    """Serve in several processes, on one port, and be a broker in one more, where there are hubs."""
    from .supervisor import ReservedPort, StartError, Supervisor, SupervisorChannel  # noqa: PLC0415 - not on every system

    shared.forked = True

    def work(channel: SupervisorChannel) -> None:
        try:
            if channel.number == count:
                from rawws.backplanes.broker import keep  # noqa: PLC0415 - only hubs need it

                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(keep(shared.path, channel.ready))
            else:
                _live(handler, given, channel.ready)
        except CommandError as error:
            # In one piece: `print` writes the end of the line by itself, and the workers fail at the same time.
            sys.stderr.write(f"rawws: {error}\n")
            raise SystemExit(1) from None
        except asyncio.CancelledError:
            raise SystemExit(130) from None

    try:
        with ReservedPort(given["host"], given["port"]) as reserved:
            given |= {"port": reserved.port, "reuse_port": True}
            addresses = [_address(sock.getsockname()) for sock in reserved.sockets]

            def show() -> None:
                for address in addresses:
                    print(announce(address), f"({count} workers; {_product()}; Ctrl-C ends it)", flush=True)

            Supervisor(count + bool(shared.count), work, show, reloads="ssl" in given).run()
    except OSError as error:
        place = f"{' and '.join(given['host'])}, port {given['port']}"
        raise CommandError(f"cannot listen on {place}: {_reason(error)}") from error
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


def _tls(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Browsers offer HTTP/2 first, and a WebSocket of this server is HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    files = f"certificate {certfile}" + (f" with key {keyfile}" if keyfile else "")
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        raise CommandError(
            f"cannot use {files}: {error.reason or error} (allowed: PEM, a certificate and its key)"
        ) from error
    except OSError as error:
        raise CommandError(f"cannot read {files}: {error.strerror}") from error
    return context


# Options of `serve` under their own names; a default that they have stands in the signature alone.
LIMITS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "origins": (_origins, "URL,URL", "the sites whose pages may connect, * for all (default: this server's own pages)"),
    "subprotocols": (_words, "NAME,NAME", "the subprotocols that the handler speaks, the best first"),
    "trusted_proxies": (_words, "ADDRESS,ADDRESS", "whose X-Forwarded-For and -Proto are believed (default: nobody's)"),
    "max_size": (_size, "BYTES", "the largest message; 64k and 1m are understood"),
    "open_timeout": (_seconds, "SECONDS", "how long an opening handshake may take"),
    "close_timeout": (_seconds, "SECONDS", "how long a closing handshake may take"),
    "max_lifetime": (_seconds, "SECONDS", "how old a connection may be; it is closed with 1001 (default: any age)"),
    "max_connections": (_count, "N", "connections in one process (default: by the descriptors that it may open)"),
    "max_connections_per_address": (_count, "N", "connections of one address (default: any number)"),
    "handshake_rate": (_rate, "N", "handshakes of one address a second (default: any number)"),
    "message_rate": (_rate, "N", "messages of one client a second; faster ones wait (default: any number)"),
    "byte_rate": (_size, "BYTES", "what one client may send a second; the rest waits (default: any number)"),
    "ping_interval": (_seconds_or_off, "SECONDS", "the time from one ping to the next; off sends none"),
    "ping_timeout": (_seconds_or_off, "SECONDS", "how long the answer to a ping may take; off waits for ever"),
}


def _load(module: str, name: str) -> object:
    """Import what MODULE:OBJECT names; raises CommandError that says in one line what is wrong with it."""
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = f"{module}.".startswith(f"{error.name}.")
        why = f"there is no module {error.name!r} in {Path.cwd()} or installed" if missing else _fault(error)
        raise CommandError(f"cannot import {module!r}: {why}") from error
    except Exception as error:  # whatever the module of the user raised
        raise CommandError(f"cannot import {module!r}: {_fault(error)}") from error
    for attribute in name.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise CommandError(f"{module!r} has no {name!r}") from None
    return found


def _application(found: object, target: str, options: argparse.Namespace) -> ServerHandler:
    """Return an ASGI application as `serve` takes it; raises CommandError for what is none."""
    from rawws.integrations.asgi import Application  # noqa: PLC0415 - only this option needs it

    try:
        app = found() if options.factory else found  # type: ignore[operator]  # what it raises is told
    except Exception as error:  # whatever the function of the user raised
        raise CommandError(f"{target} returned no application: {_fault(error)}") from error
    try:
        return Application(app, root_path=options.root_path, lifespan=options.lifespan)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{target}: {error}") from error


def _handler(found: object, target: str) -> ServerHandler:
    """Return what `serve` takes, an instance of a Handler for its class; raises CommandError for what is no handler."""
    if isinstance(found, type) and issubclass(found, Handler):
        try:
            return found()
        except Exception as error:  # whatever the class of the user raised
            raise CommandError(f"cannot make a {target}: {_fault(error)}") from error
    if isinstance(found, Routes):
        return found
    called = None if isinstance(found, type) else getattr(type(found), "__call__", None)  # noqa: B004
    if isinstance(found, Handler) or inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(called):
        try:
            check_handler(found)
        except TypeError as error:
            raise CommandError(f"{target}: {error}{_hint(found)}") from error
        return cast("ServerHandler", found)
    kind = "a function without `async`" if inspect.isroutine(found) else f"of type {type(found).__name__}"
    kind = "a class" if isinstance(found, type) else kind
    raise CommandError(f"{target} is {kind}; allowed are a coroutine function, a rawws.Handler and a rawws.Routes")


def _hint(found: Any) -> str:
    """Say what helps, where what is no handler may be an ASGI application."""
    try:
        check_arguments(found, "app", "scope", "receive", "send")
    except TypeError:
        return ""
    return "; --asgi serves an ASGI application"


def _fault(error: Exception) -> str:
    """Describe in one line what a module raised, and where."""
    text = " ".join(str(error).split())
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
    if isinstance(error, SyntaxError) or len(places) < 2:  # the first place is here; Python names that of a SyntaxError
        return f"{type(error).__name__}: {text}"
    return f"{type(error).__name__}: {text} ({Path(places[-1].filename).name}, line {places[-1].lineno})"


@final
class ShowVersion(argparse.Action):
    """Print what runs here, when it is asked for and not before."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print, and exit with 0."""
        print(_product())
        parser.exit()


def _product() -> str:
    loop = "uvloop" if loop_factory() else "asyncio"
    return f"rawws {__version__} ({_twins.running()}) on {loop} and Python {platform.python_version()}"
