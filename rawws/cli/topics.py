"""Topics in the terminal: a text to a topic of a hub, and what is published to lines (`publish` and `subscribe`)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, final
from urllib.parse import urlencode

from rawws.client.events import events
from rawws.client.publishing import post_publication
from rawws.errors import HandshakeError, InvalidURI, LocalProtocolError
from rawws.net.logs import without_userinfo
from rawws.net.loops import loop_factory
from rawws_sse import EventTooLarge

from .streams import complain, write_output
from .terminal import (
    BROKEN,
    DONE,
    FAILED,
    add_connection,
    add_http2,
    context_of,
    header_of,
    http2_of,
    legible,
    read_input,
    reason_of,
    refuse,
    seconds_above_0,
    url_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["add_topic_commands"]

PUBLISH = """\
Publish one message to a topic of a hub, and print its cursor. URL is that of
the hub's HTTP API; TEXT is the message, or - for all of standard input.
"""

PUBLISH_EXAMPLES = """
examples:
  {prog} publish http://127.0.0.1:8765/api news 'Hello'
  {prog} publish http://127.0.0.1:8765/api board '{{"x": 1}}' --as-json --event move
  date | {prog} publish https://example.com/api clock -

exit status: 0 when it is published, 1 where it could not be, 2 for a wrong
option
"""

SUBSCRIBE = """\
Print what is published to topics of a hub, a line for each publication; line
ends in a text are shown as \\n. A lost connection is made again, and nothing is
missed: where something is, standard error says so. URL is where the hub gives
event streams: that of its HTTP API, or that of its clients.
"""

SUBSCRIBE_EXAMPLES = """
examples:
  {prog} subscribe http://127.0.0.1:8765/api news
  {prog} subscribe http://127.0.0.1:8765/api news sport --since earliest --json
  {prog} subscribe http://127.0.0.1:8765/api 'news/*' --pattern --json

exit status: 0 after Ctrl-C or --count, 1 where it could not connect or was
refused, 2 for a wrong option, 3 where it was refused later on
"""


def add_topic_commands(commands: Any, prog: str) -> None:
    """Add `publish` and `subscribe` to the subparsers of the command line."""
    publish = _add(commands, "publish", "publish a message to a topic", PUBLISH, PUBLISH_EXAMPLES.format(prog=prog))
    publish.set_defaults(command=lambda options: run(options, say))
    publish.add_argument("topic", metavar="TOPIC", help="the topic")
    publish.add_argument("text", metavar="TEXT", help="the text to publish, or - for standard input")
    publish.add_argument("--binary", action="store_true", help="publish octets, which need not be UTF-8")
    publish.add_argument("--as-json", action="store_true", help="TEXT is JSON: subscribers get the value that it is")
    publish.add_argument("--event", metavar="NAME", help="publish it as an event of this name")
    publish.add_argument("--json", action="store_true", help="print the topic and the cursor in JSON")
    publish.add_argument(
        "--timeout", type=seconds_above_0, metavar="SECONDS", default=10.0, help="how long it may take (default: 10)"
    )
    subscribe = _add(
        commands, "subscribe", "print what is published to topics", SUBSCRIBE, SUBSCRIBE_EXAMPLES.format(prog=prog)
    )
    subscribe.set_defaults(command=lambda options: run(options, listen))
    subscribe.add_argument("topics", metavar="TOPIC", nargs="+", help="a topic; there may be several")
    subscribe.add_argument(
        "--pattern", action="store_true", help="each TOPIC is a pattern: 'news/*' is for all that begin with news/"
    )
    subscribe.add_argument(
        "--since", metavar="CURSOR", help="what came behind a cursor first; earliest for all there is"
    )
    subscribe.add_argument("--count", type=_count, metavar="N", help="end after so many publications")
    subscribe.add_argument("--json", action="store_true", help="print envelopes: topic, cursor, and data or base64")
    subscribe.add_argument(
        "--header", type=header_of, action="append", metavar="'NAME: VALUE'", help="a header; may be repeated"
    )
    add_http2(subscribe)
    subscribe.add_argument(
        "--open-timeout",
        type=seconds_above_0,
        metavar="SECONDS",
        default=10.0,
        help="how long to connect (default: 10)",
    )


def _add(commands: Any, name: str, summary: str, description: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("uri", metavar="URL", type=_url, help="http:// or https://, or HOST:PORT/PATH for http://")
    # What stands on a command line, all users of the machine can see.
    parser.add_argument("--key", metavar="KEY", help="the key of the API; better in the environment, as RAWWS_KEY")
    add_connection(parser)
    return parser


def _url(text: str) -> str:
    return url_of(text, "http")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:18]):
        return int(text[:18])
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def run(options: argparse.Namespace, work: Callable[..., Coroutine[Any, Any, int]]) -> int:
    """Do it until it is done, or somebody ends it; return the exit status."""
    if getattr(options, "text", "") == "-":
        options.text = read_input()
    options.key = options.key or os.environ.get("RAWWS_KEY") or None
    options.ssl = context_of(options) if options.uri.lower().startswith("https:") else None
    options.proxy = None if options.proxy == "off" else options.proxy or True
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_until_ended(options, work))


async def _until_ended(options: argparse.Namespace, work: Callable[..., Coroutine[Any, Any, int]]) -> int:
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work(options)
    except (InvalidURI, LocalProtocolError) as error:
        refuse(str(error))
    except asyncio.CancelledError:  # Ctrl-C, or SIGTERM
        return DONE


async def say(options: argparse.Namespace) -> int:
    """Publish."""
    if options.key is None:
        refuse("there is no key, needed is RAWWS_KEY in the environment, or --key")
    if options.binary and options.as_json:
        refuse("--binary and --as-json are two kinds of message, allowed is one")
    check_text("topic", options.topic)
    check_text("name of the event", options.event or "")
    octets = options.text if isinstance(options.text, bytes) else options.text.encode("utf-8", "surrogateescape")
    try:
        data = octets if options.binary else octets.decode()
        cursor = await post_publication(
            options.uri,
            options.topic,
            data,
            key=options.key,
            event=options.event,
            is_json=options.as_json,
            timeout=options.timeout,
            ssl=options.ssl,
            proxy=options.proxy,
            path=options.unix,
        )
    except UnicodeDecodeError as error:
        return _fail(f"what is to be published is not UTF-8 at byte {error.start}; --binary takes any message", FAILED)
    except (OSError, HandshakeError) as error:
        return _fail(f"cannot publish at {without_userinfo(options.uri)}: {reason_of(error)}", FAILED)
    _print(json.dumps({"topic": options.topic, "cursor": cursor}, ensure_ascii=False) if options.json else cursor)
    return DONE


def check_text(what: str, word: str) -> None:
    """Exit with 2 for a word of the command line that is not UTF-8: Python has its octets as surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        refuse(f"the {what} is not UTF-8 at character {error.start}")


async def listen(options: argparse.Namespace) -> int:
    """Print what is published, until there is enough of it."""
    for topic in options.topics:
        check_text("topic", topic)
    check_text("cursor", options.since or "")
    since = [("since", options.since)] if options.since else []
    field = "pattern" if options.pattern else "topic"
    query = urlencode([*((field, topic) for topic in options.topics), *since])
    headers = [*(options.header or ()), *([("Authorization", f"Bearer {options.key}")] if options.key else ())]
    listener = Listener(options)
    feed = events(
        f"{options.uri}{'&' if '?' in options.uri else '?'}{query}",
        additional_headers=headers,
        ssl=options.ssl,
        proxy=options.proxy,
        path=options.unix,
        open_timeout=options.open_timeout,
        http2=http2_of(options, "https"),
        on_retry=listener.retry,
        # More than a person reads.
        max_size=1 << 26,
    )
    try:
        async with feed:
            async for event in feed:
                listener.opened = True
                if listener.take(event.data or ""):
                    break
    except (OSError, HandshakeError, EventTooLarge, NoEnvelopeError) as error:
        uri = without_userinfo(options.uri)
        what = f"the subscription at {uri} ended" if listener.opened else f"cannot subscribe at {uri}"
        return _fail(f"{what}: {reason_of(error)}", BROKEN if listener.opened else FAILED)
    return DONE


class NoEnvelopeError(Exception):
    """What came is not said by a hub."""


@final
class Listener:
    """What is done with envelopes: `opened` says that there was a first one, `left` how many are still to be shown."""

    __slots__ = ("json", "left", "opened")

    def __init__(self, options: argparse.Namespace) -> None:
        self.json = options.json
        self.left = options.count
        self.opened = False

    def retry(self, error: Exception, seconds: float) -> None:
        """Say that the connection is made again. What could not be made at all is a mistake of who typed it."""
        if not self.opened:
            raise error
        _fail(f"{reason_of(error)}; again in {seconds:.1f} s", BROKEN)

    def take(self, text: str) -> bool:
        """Show an envelope; tell whether it was the last one."""
        try:
            envelope = json.loads(text)
            topic = str(envelope["topic"] if "topic" in envelope else envelope["pattern"])
            data, octets = envelope.get("data"), envelope.get("base64")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            raise NoEnvelopeError(f"what came is no envelope of rawws.v1: {legible(text[:64])}") from None
        if data is None and octets is None:
            if envelope.get("recovered") is False:
                _fail(f"it is not known what was missed of {topic!r}", BROKEN)
            return False
        if self.json:
            _print(text)
        else:
            _print(_line(data if isinstance(data, str) else octets if data is None else json.dumps(data)))
        if self.left is not None:
            self.left -= 1
        return self.left == 0


def _line(text: str) -> str:
    """Return a text as one line: whoever publishes cannot make two of one."""
    if sys.stdout.isatty():
        text = legible(text)
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _print(line: str) -> None:
    write_output(line.encode("utf-8", "replace") + b"\n")


def _fail(text: str, status: int) -> int:
    """Say in one line what is wrong, and return the exit status."""
    complain(legible(text).replace("\n", "\\n"))
    return status
