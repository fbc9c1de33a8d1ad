"""The terminal: what a person types to messages, and messages to what a person reads (`connect` and `send`)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import ssl
import sys
import threading
import unicodedata
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from rawws.client.connect import connect
from rawws.errors import ConnectionClosed, ConnectionClosedOK, HandshakeError, InvalidURI, LocalProtocolError
from rawws.net.logs import without_userinfo
from rawws.net.loops import loop_factory

from .streams import complain, write_output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from rawws.net.websocket import WebSocket

__all__ = [
    "BROKEN",
    "FAILED",
    "add_commands",
    "add_connection",
    "add_http2",
    "context_of",
    "header_of",
    "http2_of",
    "legible",
    "read_input",
    "reason_of",
    "refuse",
    "seconds_above_0",
    "url_of",
]

# The exit statuses, besides 2 for a wrong option and 130 for a second Ctrl-C.
DONE, FAILED, BROKEN, SILENT = 0, 1, 3, 4

CONNECT = """\
Talk to a WebSocket server: each line that you type is a message, what comes is
shown above it. Ctrl-D closes the connection properly, and so does Ctrl-C.

In a pipe it is plain: each line of standard input is a message, and standard
output has what comes and nothing else. At the end of the input it waits until
nothing came for --linger seconds, and closes.
"""

SEND = """\
Send one message, print the first one that comes back, and close. MESSAGE is
the text, or - for all of standard input.
"""

STATUS = """
exit status: 0 after a regular end, 1 where it could not connect, 2 for a wrong
option, 3 where the connection broke or was closed with an error{more}
"""

EXAMPLES = """
examples:
  {prog} connect ws://127.0.0.1:8765
  {prog} connect wss://example.com/chat --header 'Authorization: Bearer x'
  {prog} send ws://127.0.0.1:8765 'hello'
  {prog} connect ws://127.0.0.1:8765 --linger 5 <lines.txt >answers.txt
"""

PROMPT: Final = "> "
# How much of a binary message is shown, in bytes.
SHOWN: Final = 32


def add_commands(commands: Any, prog: str) -> None:
    """Add `connect` and `send` to the subparsers of the command line."""
    talk = _add_command(commands, "connect", "talk to a server, line by line", CONNECT, EXAMPLES.format(prog=prog))
    talk.set_defaults(command=lambda options: run(options, converse))
    talk.add_argument(
        "--ping",
        type=seconds_above_0,
        metavar="SECONDS",
        help="send a ping so often, and show how long its answer took",
    )
    talk.add_argument(
        "--linger",
        type=_seconds_or_off,
        metavar="SECONDS",
        default=1.0,
        help="in a pipe: how long to wait for more after the end of the input, off for ever (default: 1)",
    )
    more = ",\n4 where no answer came in time"
    send = _add_command(commands, "send", "send one message and print the answer", SEND, "", more)
    send.set_defaults(command=lambda options: run(options, ask))
    send.add_argument("message", metavar="MESSAGE", help="the text to send, or - for standard input")
    send.add_argument("--no-reply", action="store_true", help="do not wait for an answer")
    send.add_argument(
        "--timeout", type=seconds_above_0, metavar="SECONDS", default=10.0, help="how long to wait for it (default: 10)"
    )


def _add_command(
    commands: Any, name: str, summary: str, description: str, examples: str, more: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples + STATUS.format(more=more),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("uri", metavar="URL", type=_url, help="ws:// or wss://, or HOST:PORT for ws://")
    parser.add_argument(
        "--header",
        type=header_of,
        action="append",
        metavar="'NAME: VALUE'",
        help="a header of the opening handshake; may be repeated",
    )
    parser.add_argument("--subprotocol", action="append", metavar="NAME", help="a subprotocol; may be repeated")
    parser.add_argument("--origin", metavar="URL", help="the site that a browser would name")
    parser.add_argument("--binary", action="store_true", help="send binary messages, and in a pipe copy them unchanged")
    add_connection(parser)
    add_http2(parser)
    parser.add_argument("--no-compression", action="store_true", help="do not offer compression")
    parser.add_argument(
        "--open-timeout",
        type=seconds_above_0,
        metavar="SECONDS",
        default=10.0,
        help="how long to connect (default: 10)",
    )
    return parser


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to reach a server."""
    parser.add_argument("--uds", dest="unix", metavar="PATH", help="a unix socket, instead of the host and port in URL")
    parser.add_argument("--proxy", metavar="URL", help="a proxy, instead of what the environment says; off for none")
    parser.add_argument("--ca", metavar="FILE", help="the authority whose certificates are trusted, in PEM")
    parser.add_argument("--insecure", action="store_true", help="take any certificate; for tests only")


def add_http2(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for HTTP/2."""
    parser.add_argument("--http2", action="store_true", help="use HTTP/2 where the server offers it, else HTTP/1.1")


def http2_of(options: argparse.Namespace, scheme: str) -> bool:
    """Return whether HTTP/2 is asked for; exits with 2 for a URL whose scheme is not this one, the one with TLS."""
    if options.http2 and not options.uri.lower().startswith(f"{scheme}:"):
        refuse(f"--http2 is agreed on in TLS, and {without_userinfo(options.uri)} has none: needed is {scheme}://")
    return bool(options.http2)


def _url(text: str) -> str:
    return url_of(text, "ws")


def url_of(text: str, scheme: str) -> str:
    """Return a URL, of this scheme where it has none. Raises ArgumentTypeError for one that lacks its slashes."""
    if "://" in text:
        return text
    # `localhost:8765` is no URL of the scheme localhost.
    named = text.partition(":")[0].lower()
    if named in {"ws", "wss", "http", "https"} and ":" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has no // after {named}:")
    return f"{scheme}://{text}"


def header_of(text: str) -> tuple[str, str]:
    """Take a header apart. Raises ArgumentTypeError."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME: VALUE")
    return name.strip(), value.strip()


def seconds_above_0(text: str) -> float:
    """Return a time. Raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds, more than 0")


def _seconds_or_off(text: str) -> float | None:
    return None if text == "off" else seconds_above_0(text)


def run(options: argparse.Namespace, conversation: Callable[..., Coroutine[Any, Any, int]]) -> int:
    """Connect, hold the conversation and close; return the exit status."""
    if getattr(options, "message", "") == "-":
        options.message = read_input()
    screen = Screen(options.binary)
    with screen.kept(), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_hold(options, conversation, screen))


def read_input() -> bytes:
    """Return all of standard input. In a loop, neither a thread nor a task that waits for it could be interrupted."""
    return sys.stdin.buffer.read()


async def _hold(
    options: argparse.Namespace, conversation: Callable[..., Coroutine[Any, Any, int]], screen: Screen
) -> int:
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        ws = await _connection(options)
    except InvalidURI as error:  # of a proxy, which is looked at when it is needed
        refuse(str(error))
    except (OSError, HandshakeError) as error:
        return screen.fail(f"cannot connect to {without_userinfo(options.uri)}: {reason_of(error)}", FAILED)
    try:
        return await conversation(ws, options, screen)
    except ConnectionClosedOK:
        return DONE
    except ConnectionClosed as error:
        return screen.fail(f"the connection ended: {error}", BROKEN)
    except asyncio.CancelledError:  # Ctrl-C, or SIGTERM
        return DONE
    finally:
        await ws.close()


def _connection(options: argparse.Namespace) -> connect:
    """Return what connects; exits with 2 for options that cannot be."""
    context = context_of(options)
    try:
        return connect(
            options.uri,
            additional_headers=options.header,
            subprotocols=options.subprotocol,
            origin=options.origin,
            compression=None if options.no_compression else "deflate",
            path=options.unix,
            proxy=None if options.proxy == "off" else options.proxy or True,
            ssl=context if options.uri.lower().startswith("wss:") else None,
            open_timeout=options.open_timeout,
            http2=http2_of(options, "wss"),
            # More than a person reads.
            max_size=1 << 26,
        )
    except (InvalidURI, LocalProtocolError) as error:
        refuse(str(error))


def context_of(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Return what --ca and --insecure stand for, None without them; exits with 2 for certificates that are none."""
    if not (options.ca or options.insecure):
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
    except ssl.SSLError as error:
        refuse(f"cannot use the certificates in {options.ca}: {error.reason or error} (allowed: PEM)")
    except OSError as error:
        refuse(f"cannot use the certificates in {options.ca}: {reason_of(error)}")
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def refuse(text: str) -> NoReturn:
    """Say in one line what is wrong with the options, and exit with 2."""
    complain(text)
    raise SystemExit(2)


def reason_of(error: Exception) -> str:
    """Return what a person is told of an error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message} (--ca names an authority, --insecure takes any)"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "what answers there is not TLS (ws:// and http:// are without it)"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


# -- the conversations


async def ask(ws: WebSocket, options: argparse.Namespace, screen: Screen) -> int:
    """Send one message and print the answer."""
    message: str | bytes = options.message
    if isinstance(message, str):
        message = message.encode("utf-8", "surrogateescape")
    try:
        await ws.send(message if options.binary else message.decode())
    except UnicodeDecodeError as error:
        return screen.fail(f"the message is not UTF-8 at byte {error.start}; --binary sends it as it is", FAILED)
    if options.no_reply:
        return DONE
    try:
        async with asyncio.timeout(options.timeout):
            screen.show(await ws.recv())
    except TimeoutError:
        return screen.fail(f"no answer came within {options.timeout:g} s", SILENT)
    return DONE


async def converse(ws: WebSocket, options: argparse.Namespace, screen: Screen) -> int:
    """Send what is typed and show what comes, until one side ends it."""
    details = [f"subprotocol {ws.subprotocol}"] if ws.subprotocol else []
    if options.http2 and ws.response is not None:
        # RFC 8441 5: a WebSocket on a stream is answered with 200, one on a connection of its own with 101.
        details.append("HTTP/2" if ws.response.status == 200 else "HTTP/1.1, for the server offers no HTTP/2 here")
    screen.note(f"connected to {without_userinfo(options.uri)}" + "".join(f", {detail}" for detail in details))
    helpers = [asyncio.create_task(_send_lines(ws, options, screen))]
    if options.ping:
        helpers.append(asyncio.create_task(_ping(ws, options.ping, screen)))
    try:
        async for message in ws:
            screen.show(message)
            screen.heard += 1
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
    for task in helpers:
        if not task.cancelled() and isinstance(task.exception(), UnicodeDecodeError):
            return screen.fail("the input is not UTF-8; --binary sends it as it is", FAILED)
    if screen.prompts:
        screen.note(f"closed: {ws.connection.closed()}")
    return DONE


async def _send_lines(ws: WebSocket, options: argparse.Namespace, screen: Screen) -> None:
    try:
        async for line in screen.lines():
            try:
                await ws.send(line if options.binary else line.decode())
            except UnicodeDecodeError:
                if not screen.prompts:
                    ws.close()
                    raise
                screen.note("not sent: it is not UTF-8")
        if not screen.prompts:
            heard = -1
            while options.linger is None or heard != screen.heard:
                heard = screen.heard
                await asyncio.sleep(options.linger or 3600)
    except ConnectionClosed:
        return
    ws.close()


async def _ping(ws: WebSocket, seconds: float, screen: Screen) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(seconds)
            screen.note(f"pong after {1000 * await ws.ping():.1f} ms")


# -- what a person sees


@final
class Screen:
    """Standard input and output: with a prompt and colours on a terminal, plain in a pipe.

    `heard` counts the messages that were shown.
    """

    __slots__ = ("_beginning", "_binary", "_colours", "heard", "prompts")

    def __init__(self, binary: bool) -> None:
        self._binary = binary
        # Who holds it may change how the terminal works: a line that begins, or the end.
        self._beginning = threading.Lock()
        self.heard = 0
        self.prompts = sys.stdin.isatty() and sys.stdout.isatty()
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the terminal as it was: a thread that waits for a line is left alone at the end."""
        if not self.prompts:
            yield
            return
        try:
            import termios  # noqa: PLC0415 - not on Windows, whose terminal needs none of it
        except ImportError:
            yield
            return
        before = termios.tcgetattr(sys.stdin)
        try:
            yield
        finally:
            # For ever: a line that began now would change the terminal once more, and nobody would change it back. It
            # begins in less time than this, unless the terminal takes no output.
            self._beginning.acquire(timeout=1)
            # The prompt is of no more use.
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def show(self, message: str | bytes) -> None:
        """Show a message."""
        if sys.stdout.isatty():
            self._above(f"{self._colour('32', '<')} {legible(message)}")
        else:
            data = message.encode() if isinstance(message, str) else message
            raw = self._binary and isinstance(message, bytes)
            write_output(data if raw else data + b"\n")

    def note(self, text: str) -> None:
        """Tell a person what happens; in a pipe there is none."""
        if self.prompts:
            self._above(self._colour("2", legible(text)))

    def fail(self, text: str, status: int) -> int:
        """Say in one line why it ends, and return the exit status."""
        if self.prompts:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
        complain(legible(text))
        return status

    def _colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    def _above(self, text: str) -> None:
        """Write above the line that is being typed, which stays as it is, cursor and all."""
        if not self.prompts:
            print(text, flush=True)
            return
        columns, height = shutil.get_terminal_size()
        lines, rows = _fit(text.split("\n"), columns, max(height - 2, 1))
        # Make room below, insert the rows where the line is, write them, and go back to the line, which moved down.
        make_room = "\n" * rows + f"\x1b[{rows}A\x1b[{rows}L"
        sys.stdout.write(f"\x1b7{make_room}{lines}\x1b8\x1b[{rows}B")
        sys.stdout.flush()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of standard input, without their ends, as they are typed."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        # One line waits, not a file.
        free = threading.Semaphore()

        def read() -> None:
            # The loop may end before the input does.
            with contextlib.suppress(RuntimeError, OSError):
                for line in itertools.chain(_typed(self._beginning) if self.prompts else _piped(), [None]):
                    free.acquire()
                    loop.call_soon_threadsafe(queue.put_nowait, line)

        # A loop cannot wait for every kind of file, and a thread that waits for a person cannot be stopped.
        threading.Thread(target=read, daemon=True).start()
        while (line := await queue.get()) is not None:
            free.release()
            yield line


def _typed(beginning: threading.Lock) -> Iterator[bytes]:
    """Yield what is typed at the prompt, with the history and the keys of readline where there is one.

    `beginning` is held while a line begins: until readline has changed how the terminal works.
    """
    changes = held = False

    def began() -> None:
        nonlocal held
        if held:
            held = False
            beginning.release()

    with contextlib.suppress(ImportError):
        import readline  # noqa: PLC0415 - not everywhere

        # One row, however long the line is: so it can be found again.
        readline.parse_and_bind("set horizontal-scroll-mode on")
        readline.parse_and_bind("tab: self-insert")
        # It calls this before it waits for the first key; what macOS has in its place does not.
        changes = "libedit" not in (readline.__doc__ or "")
        if changes:
            readline.set_pre_input_hook(began)
    while True:
        if changes:
            held = beginning.acquire()
        try:
            line = input(PROMPT)
        except EOFError:
            return
        finally:
            began()
        yield line.encode("utf-8", "surrogateescape")


def _piped() -> Iterator[bytes]:
    """Yield the lines of a pipe or a file."""
    # Not by sys.stdin.buffer: a thread that waits in it when Python ends makes that crash.
    rest = b""
    while data := os.read(sys.stdin.fileno(), 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


def legible(message: str | bytes) -> str:
    """Return what a terminal may get: no message moves the cursor, or asks the terminal to answer."""
    if isinstance(message, bytes):
        rest = f" ... ({len(message)} bytes)" if len(message) > SHOWN else ""
        return f"binary {message[:SHOWN].hex(' ')}{rest}"
    return "".join(
        character if character in "\n\t" or not unicodedata.category(character).startswith("C") else _escape(character)
        for character in message
    ).expandtabs()


def _escape(character: str) -> str:
    # Joiners and variation selectors make emoji and scripts; they are harmless.
    if character in "\u200c\u200d":
        return character
    return character.encode("unicode_escape").decode()


def _fit(lines: list[str], columns: int, most: int) -> tuple[str, int]:
    """Return as many lines as fit into so many rows, as one text, and how many rows they take."""
    text, rows = "\n".join(lines), sum(_rows(line, columns) for line in lines)
    if rows <= most:
        return text, rows
    kept: list[str] = []
    rows = 1
    for line in lines:
        if rows + _rows(line, columns) > most:
            break
        kept.append(line)
        rows += _rows(line, columns)
    # Of one that is longer than the screen, the beginning.
    if not kept and most > 1:
        kept.append(lines[0][: columns * (most - 1) // 2])
        rows += _rows(kept[0], columns)
    shown = "\n".join(kept)
    return "\n".join([*kept, f"... ({len(text) - len(shown)} more characters)"]), rows


def _rows(line: str, columns: int) -> int:
    return max(1, -(-_width(line) // columns))


def _width(line: str) -> int:
    """Return how many columns a line takes, its colours not counted."""
    width, escape = 0, False
    for character in line:
        if character == "\x1b":
            escape = True
        elif escape:
            escape = character != "m"
        elif not unicodedata.combining(character):
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width
