"""Arguments: the options of the command line, from words to what `serve` takes."""

from __future__ import annotations

import argparse
import inspect
import os
from typing import TYPE_CHECKING

from rawws.net.engines import ENGINES
from rawws.server.options import check_origins
from rawws.server.server import serve
from rawws.server.shutdown import Drain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LIMITS",
    "add_asgi",
    "add_end",
    "add_engine",
    "add_limits",
    "add_reload",
    "add_tls",
    "add_where",
    "target_of",
    "workers_of",
]


# An int of C.
LARGEST_DESCRIPTOR = 2**31 - 1


def add_asgi(parser: argparse.ArgumentParser) -> None:
    """Add the options of ASGI applications."""
    group = parser.add_argument_group("ASGI")
    group.add_argument("--asgi", action="store_true", help="MODULE:OBJECT is an ASGI application")
    group.add_argument("--factory", action="store_true", help="it is a function that returns the application")
    group.add_argument("--root-path", default="", metavar="PATH", help="where a proxy mounted the application")
    group.add_argument(
        "--lifespan", choices=("auto", "on", "off"), default="auto", help="whether it has a lifespan (default: auto)"
    )
    group.add_argument("--probes", action="store_true", help="answer /healthz, /readyz and /metrics in its place")


def add_where(parser: argparse.ArgumentParser, *, unix: bool = True, default: str = "") -> None:
    """Add the options that say where to listen and what to log; `default` is whose words count without them."""
    where = parser.add_argument_group("where it listens")
    host, port = default or "127.0.0.1", default or "8765"
    where.add_argument("--host", action="append", help=f"name or address; may be repeated (default: {host})")
    where.add_argument("--port", type=_port, help=f"0 takes a free one (default: {port})")
    if unix:
        where.add_argument("--uds", metavar="PATH", help="a unix socket, instead of host and port")
        where.add_argument("--uds-mode", type=_mode, metavar="MODE", help="its permissions, in octal, such as 660")
        where.add_argument(
            "--fd", type=_descriptor, action="append", metavar="N", help="a socket that was inherited; may be repeated"
        )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error", "critical"),
        default="info",
        help="the least that is logged, on standard error (default: %(default)s)",
    )
    parser.add_argument(
        "--log-json", action="store_true", help="log JSON, one object a line, the line that says where it listens too"
    )
    parser.add_argument("--access-log", action="store_true", help="log each HTTP response")


def _mode(text: str) -> int:
    if len(text) > 4 or text.strip("01234567") or not text or int(text, 8) > 0o777:
        raise argparse.ArgumentTypeError(f"{text!r} are no permissions, allowed are 0 to 777")
    return int(text, 8)


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Add the options of TLS."""
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--ssl-certfile", metavar="FILE", help="the certificate with its chain, in PEM; turns TLS on")
    tls.add_argument("--ssl-keyfile", metavar="FILE", help="its private key, if it is not in the same file")
    tls.add_argument(
        "--ssl-keyfile-password",
        metavar="TEXT",
        help="what the key is encrypted with; others see a command line, so rather RAWWS_SSL_KEYFILE_PASSWORD",
    )
    tls.add_argument("--ssl-ca-certs", metavar="FILE", help="clients need a certificate of one of these authorities")


def add_limits(parser: argparse.ArgumentParser) -> None:
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
        "--proxy-protocol",
        action="store_true",
        default=argparse.SUPPRESS,
        help="every connection begins with the PROXY header of a trusted proxy; others are closed",
    )
    add_engine(group)
    group.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compress messages for those who ask for it (default: yes)",
    )


def add_engine(parser: argparse._ActionsContainer, default: str = "what costs less here") -> None:
    """Add the option of who reads and writes the sockets; `default` is what holds without it, in words."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=argparse.SUPPRESS,
        help=f"who reads and writes the sockets: the loop, or an epoll of our own (default: {default})",
    )


def add_end(parser: argparse.ArgumentParser) -> None:
    """Add the options of the drain."""
    group = parser.add_argument_group("how it ends")
    plan = Drain()
    for name, kind, text in (
        ("grace", _seconds_or_none, "how long it goes on, not ready, before it takes no new connections"),
        ("timeout", _seconds_or_off, "how long connections and handlers may take to end after that; off waits for all"),
    ):
        group.add_argument(
            f"--drain-{name}",
            type=kind,
            metavar="SECONDS",
            default=getattr(plan, name),
            help=f"{text} (default: %(default)g)",
        )


def target_of(text: str) -> tuple[str, str]:
    """Return the module and the name that MODULE:OBJECT stands for."""
    module, colon, name = text.partition(":")
    if not (colon and module and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE:OBJECT, for example chat:chat")
    if module.startswith(".") or "/" in module or "\\" in module:
        raise argparse.ArgumentTypeError(f"{module!r} is not the name of a module: of a file chat.py, that is chat")
    return module, name


def add_reload(parser: argparse.ArgumentParser) -> None:
    """Add the option for those who write the program."""
    parser.add_argument(
        "--reload", action="store_true", help="start again when a file of Python here changes; needs watchfiles"
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def workers_of(text: str) -> int:
    """Return a number of processes; auto is one for each core."""
    if text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 to 999, or auto")
    return int(text)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _origins(text: str) -> str | list[str | None]:
    # None: programs that are no browsers name no site, and could name any.
    origins = "*" if text == "*" else [*_words(text), None]
    try:
        check_origins(origins)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).partition(" has ")[2]) from None
    return origins


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


def _http2(text: str) -> bool | str | None:
    if text not in HTTP2:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(HTTP2)}")
    return HTTP2[text]


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


def _seconds_or_none(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


def _seconds_or_off(text: str) -> float | None:
    return None if text == "off" else _seconds(text)


def _descriptor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:11]) <= LARGEST_DESCRIPTOR):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a descriptor, for example 3")
    return int(text)


# By what `serve` takes.
HTTP2: dict[str, bool | str | None] = {"auto": None, "on": True, "off": False, "no-websocket": "no-websocket"}

# Options of `serve` under their own names; a default that they have stands in the signature alone.
LIMITS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "origins": (_origins, "URL,URL", "the sites whose pages may connect, * for all (default: this server's own pages)"),
    "hosts": (_words, "NAME,NAME", "the names in Host, *.NAME for those below, * for any (default: any; see the docs)"),
    "subprotocols": (_words, "NAME,NAME", "the subprotocols that the handler speaks, the best first"),
    "trusted_proxies": (_words, "ADDRESS,ADDRESS", "whose X-Forwarded-For and -Proto are believed (default: nobody's)"),
    "http2": (
        _http2,
        "WHEN",
        "auto (where there is TLS), on (without it, too), off, or no-websocket (requests alone); default: auto",
    ),
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
