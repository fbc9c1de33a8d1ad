"""Looking on in the terminal: what `serve --admin` answers, to lines (`status`, `top`, `topics`, `who` and `kick`)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import urlencode, urlsplit

from rawws.admin.inspector import ORDERS
from rawws.admin.listening import DEFAULT_PORT
from rawws.net.logs import without_userinfo

from .streams import complain, write_output
from .terminal import legible, seconds_above_0, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["add_looking_commands"]

DONE, FAILED = 0, 1
# An answer takes as long as a busy worker may, and some more, in seconds.
TIMEOUT: Final = 20.0
# To the corner, and what is right of each line and below the last one away: so nothing flickers.
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
LARGEST_LIMIT: Final = 1000

EXAMPLES = """
It asks a server that was started with --admin; --url or RAWWS_ADMIN says where
(default: http://127.0.0.1:{port}). Where that needs a key: RAWWS_ADMIN_KEY.

exit status: 0 when it is done, 1 where it could not be, 2 for a wrong option
"""
COMMANDS: Final = {
    "status": "show what a server holds and how fast that changes",
    "top": "show it again and again, with the connections that most waits for",
    "topics": "show topics and their subscribers",
    "who": "show who is present in a topic",
    "kick": "close a connection",
}


class LookError(Exception):
    """What could not be had, in one line."""


def add_looking_commands(commands: Any, prog: str) -> None:
    """Add the commands of those who look on to the subparsers of the command line."""
    for name, summary in COMMANDS.items():
        parser: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            usage=f"{prog} {name} {'TOPIC ' if name == 'who' else 'ID ' if name == 'kick' else ''}[options]",
            epilog=EXAMPLES.format(port=DEFAULT_PORT),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.set_defaults(command=lambda options, show=SHOWS[name]: run(options, show))
        parser.add_argument("--url", type=_url, metavar="URL", help="http:// or https://, or HOST:PORT for http://")
        # What stands on a command line, all users of the machine can see.
        parser.add_argument("--key", metavar="KEY", help="the key; better in the environment, as RAWWS_ADMIN_KEY")
        parser.add_argument("--json", action="store_true", help="print what was answered")
        if name == "who":
            parser.add_argument("topic", metavar="TOPIC", help="the topic")
        if name == "kick":
            parser.add_argument("id", metavar="ID", help="the connection, as `top` shows it")
            parser.add_argument("--code", type=int, metavar="CODE", help="the code of the Close frame (default: 1008)")
            parser.add_argument("--reason", metavar="TEXT", help="its reason")
        if name in {"top", "topics"}:
            parser.add_argument("--limit", type=_limit, metavar="N", default=20, help="at most so many (default: 20)")
        if name == "top":
            parser.add_argument(
                "--sort", choices=list(ORDERS), default="waiting", help="what they are sorted by (default: waiting)"
            )
            parser.add_argument("--user", default="", help="list the connections of this user alone")
            parser.add_argument(
                "--interval", type=seconds_above_0, metavar="SECONDS", default=3.0, help="how often (default: 3)"
            )
            parser.add_argument("--once", action="store_true", help="show it once")


def _url(text: str) -> str:
    found = urlsplit(url_of(text, "http"))
    try:
        good = found.scheme in {"http", "https"} and found.hostname and found.port != 0
    except ValueError:
        good = False
    if not good or found.query or found.fragment:
        raise argparse.ArgumentTypeError(f"{without_userinfo(text)!r} is no http:// or https:// with a host")
    return found.geturl().rstrip("/")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 0 < int(text) <= LARGEST_LIMIT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 1 to {LARGEST_LIMIT}")
    return int(text)


@final
class AdminClient:
    """Asks a server, over a connection for each question."""

    __slots__ = ("_key", "url")

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._key = key

    def get(self, path: str, **query: Any) -> Any:
        """Return what is answered."""
        return self._ask("GET", f"{path}?{urlencode(query, errors='surrogateescape')}", None)

    def post(self, path: str, body: Any) -> Any:
        """Return what is answered."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        """Return what is answered. Raises LookError."""
        from http.client import HTTPConnection, HTTPException, HTTPSConnection  # noqa: PLC0415 - few ask

        target = urlsplit(self.url)
        headers = {"Content-Type": "application/json"} if body else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        kind = HTTPSConnection if target.scheme == "https" else HTTPConnection
        connection = kind(target.hostname or "", target.port, timeout=TIMEOUT)
        try:
            connection.request(method, target.path + path, body, headers)
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise LookError(
                f"nobody answers at {self.shown}: {said} (is it served with --admin? --url says where)"
            ) from None
        finally:
            connection.close()
        return self._read(status, text)

    def _read(self, status: int, text: bytes) -> Any:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if status == 200 and isinstance(found, dict):
            return found
        if status == 401:
            raise LookError(
                f"{self.shown} needs {'another' if self._key else 'a'} key: RAWWS_ADMIN_KEY has it, or --key"
            )
        why = (
            found.get("error") if isinstance(found, dict) else text.decode("utf-8", "replace").partition("\n")[0][:256]
        )
        # 426 is a server's own port, where it wants WebSockets.
        if status in {200, 426} or not why:
            raise LookError(f"what answers at {self.shown} is no `rawws serve --admin` (status {status})")
        raise LookError(f"{self.shown} answered {status}: {why}")

    @property
    def shown(self) -> str:
        """The URL, as it may be shown."""
        return without_userinfo(self.url)


def run(options: argparse.Namespace, show: Callable[[argparse.Namespace, AdminClient], Iterator[Any]]) -> int:
    """Show what is asked for; return the exit status."""
    try:
        url = options.url or _url(os.environ.get("RAWWS_ADMIN") or f"http://127.0.0.1:{DEFAULT_PORT}")
    except argparse.ArgumentTypeError as error:
        return _fail(f"RAWWS_ADMIN: {error}")
    client = AdminClient(url, options.key or os.environ.get("RAWWS_ADMIN_KEY"))
    try:
        for found, lines in show(options, client):
            _print([json.dumps(found, ensure_ascii=False)] if options.json else lines, redraws=_redraws(options))
    except LookError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        pass
    return DONE


def _redraws(options: argparse.Namespace) -> bool:
    """Tell whether what is shown takes the place of what was shown before."""
    return sys.stdout.isatty() and not options.json and not getattr(options, "once", True)


def _print(lines: list[str], *, redraws: bool) -> None:
    # Whoever publishes or connects can neither begin a line nor move the cursor.
    lines = [legible(line).replace("\n", "\\n") for line in lines]
    if redraws:
        columns, rows = shutil.get_terminal_size()
        lines = [f"{line[: columns - 1]}{CLEAR_LINE}" for line in lines[: rows - 1]]
        lines[0] = HOME + lines[0]
        lines[-1] += CLEAR_BELOW
    write_output("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


def _fail(text: str) -> int:
    complain(legible(text).replace("\n", "\\n"))
    return FAILED


# -- what each command shows: what was answered, and the lines of it


def show_status(options: argparse.Namespace, client: AdminClient) -> Iterator[Any]:  # noqa: ARG001 - as the others
    """Show what there is."""
    found = client.get("/v1/status")
    yield found, status_lines(found)


def show_top(options: argparse.Namespace, client: AdminClient) -> Iterator[Any]:
    """Show it with connections, again and again."""
    while True:
        found = client.get("/v1/status")
        listed = client.get("/v1/connections", limit=options.limit, sort=options.sort, user=options.user)
        lines = [*status_lines(found), "", *connection_lines(listed["connections"]), *busy_lines(listed)]
        yield found | {"listed": listed}, lines
        if options.once:
            return
        time.sleep(options.interval)


def show_topics(options: argparse.Namespace, client: AdminClient) -> Iterator[Any]:
    """Show topics."""
    found = client.get("/v1/topics", limit=options.limit)
    rows = [[each["subscribers"], each["present"], each["held"], each["topic"]] for each in found["topics"]]
    lines = table(["subscribers", "present", "held", "topic"], rows) if rows else ["no topics"]
    more = found["total"] - len(rows)
    yield found, [*lines, *([f"... and {more} more"] if more else []), *busy_lines(found)]


def show_who(options: argparse.Namespace, client: AdminClient) -> Iterator[Any]:
    """Show who is present."""
    found = client.get("/v1/presence", topic=options.topic)
    rows = [
        [
            each["id"],
            each["user"] or "-",
            "client" if each["claimed"] else "server",
            json.dumps(each["info"], ensure_ascii=False),
        ]
        for each in found["present"]
    ]
    counts = f"{found['total']} present, {found['subscribers']} subscribed"
    yield found, [*(table(["id", "user", "said by", "info"], rows) if rows else []), counts, *busy_lines(found)]


def show_kick(options: argparse.Namespace, client: AdminClient) -> Iterator[Any]:
    """Close a connection."""
    said = {"id": options.id, "code": options.code, "reason": options.reason}
    found = client.post("/v1/kick", {name: value for name, value in said.items() if value is not None})
    yield found, [f"{found['kicked']} is closed"]


SHOWS: Final = {
    "status": show_status,
    "top": show_top,
    "topics": show_topics,
    "who": show_who,
    "kick": show_kick,
}


def status_lines(status: Any) -> list[str]:
    """Return the lines of a status."""
    rates, topics = status["rates"], status["topics"]
    missing = status["expected"] - len(status["workers"])
    there = [f"{status['connections']:g} WebSockets", f"{status['streams']:g} event streams"]
    there += [f"{status['polls']:g} long polls", f"{topics['total']} topics"]
    there += [f"{status['subscriptions']:g} subscriptions"]
    changes = [f"{rates[name]:g} {name}" for name in ("opened", "closed", "published", "delivered")]
    changes += [f"{size(rates['received'])} in", f"{size(rates['sent'])} out"]
    slow = [f"{len(status['slow'])} now", f"{status['closed_slow']:g} closed so far"]
    slow += [f"{status['waiting']:g} publications wait"]
    lines = [", ".join(there), f"a second: {', '.join(changes)}", f"slow: {', '.join(slow)}"]
    rows = [
        [
            each["worker"],
            each["pid"],
            state(each),
            each["connections"],
            each["streams"],
            each["polls"],
            f"{each['lag'] * 1000:.1f} ms",
        ]
        for each in status["workers"]
    ]
    lines += ["", *table(["worker", "process", "state", "connections", "streams", "polls", "lag"], rows)]
    return [*lines, *([f"{missing} of {status['expected']} do not answer"] if missing else [])]


def state(worker: Any) -> str:
    """Return what a worker does."""
    for name in ("busy", "draining", "degraded"):
        if worker[name]:
            return "backplane away" if name == "degraded" else name
    return "serving" if worker["serving"] else "closed"


def busy_lines(found: Any) -> list[str]:
    """Return what is missing in what is listed."""
    busy = found.get("busy", 0)
    return [f"{busy} {'worker is' if busy == 1 else 'workers are'} busy and missing here"] if busy else []


def connection_lines(connections: list[Any]) -> list[str]:
    """Return the lines of connections."""
    rows = [
        [
            size(each["waiting"]),
            size(each["received"]),
            size(each["sent"]),
            each["topics"],
            f"{each['latency'] * 1000:.1f} ms",
            f"{each['seconds']:.0f} s",
            each["worker"],
            each["kind"],
            each["remote"],
            each["user"] or "-",
            each["path"] or "-",
            each["id"],
        ]
        for each in connections
    ]
    names = ["waiting", "in", "out", "topics", "ping", "age", "worker", "kind", "from", "user", "path", "id"]
    return table(names, rows) if rows else ["no connections"]


def size(value: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def table(names: list[str], rows: list[list[Any]]) -> list[str]:
    """Return the lines of a table; the last column is as wide as it is."""
    cells = [names, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(names))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
