"""The command line: words to a command, and every mistake to one line (`python -m rawws`)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, final

from . import backplanes, gateway, looking, terminal, topics
from .admin import add_admin
from .arguments import add_asgi, add_end, add_limits, add_reload, add_tls, add_where, target_of, workers_of
from .environment import EnvironmentParser, options_in, variable_of
from .loading import CommandError
from .logs import begin_json_lines
from .serve import product, serve_application, serve_demo
from .streams import ReaderGoneError, complain, open_streams, release_streams, write_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main", "parser"]

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

  Hubs joined with those of other servers, by a Redis:
    {prog} serve chat:app --backplane redis://127.0.0.1:6379

  An ASGI application, for example of FastAPI, over HTTP and WebSockets:
    {prog} serve --asgi app:app
"""

DEMO = """\
Run a server with one page: an echo and a chat room over WebSockets, and a feed
by events and by long polling. A second page, /connection, shows how many TCP
connections 20 event streams, 20 WebSockets and 20 requests take: with TLS one.
"""

ENVIRONMENT = """
Each option can be a variable of the environment as well: RAWWS_MAX_SIZE is
--max-size, RAWWS_ACCESS_LOG=yes is --access-log, and PORT is --port. What
stands on the command line counts first.
"""

STATUS = """
Ctrl-C and SIGTERM close every connection properly and exit with 0; a second
Ctrl-C does not wait (130). SIGHUP reads the certificate again. What fails exits
with 1, a wrong option with 2.
"""


# Options that do nothing without another one: that is said, for who gave them waits for something.
NEEDS = {
    "ssl_certfile": ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    "asgi": ("factory", "probes", "root_path", "lifespan"),
    "uds": ("uds_mode",),
    "admin": ("admin_key_file",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for what failed, 130 for a second Ctrl-C (argparse exits with 2, for usage)."""
    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        whole = parser()
        options = parse(whole, words)
        check(options, whole.commands[words[0]])
        # What `--reload` runs, with the same environment.
        options.words = [word for word in words if word != "--reload"]
        if getattr(options, "log_json", False):
            begin_json_lines()
        run: Callable[[argparse.Namespace], int] = options.command
        return run(options)
    except CommandError as error:
        complain(str(error))
        return 1
    except ReaderGoneError:
        return 0
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C before it serves, or a second one
        return 130
    finally:
        release_streams()


def check(options: argparse.Namespace, command: EnvironmentParser) -> None:
    """Exit with 2 for options that do not go together."""
    if getattr(options, "uds", None) and (options.host or options.port is not None):
        command.error("--uds stands for --host and --port, and not beside them")
    if getattr(options, "fd", None) and (options.uds or options.host or options.port is not None):
        command.error("--fd stands for --host, --port and --uds, and not beside them")
    if (getattr(options, "uds", None) or getattr(options, "fd", None)) and options.workers > 1:
        command.error(
            f"--workers shares a port, not {'a unix socket' if options.uds else 'a socket that was inherited'}"
        )
    for needed, names in NEEDS.items():
        for name in names:
            if getattr(options, name, None) != command.get_default(name) and not getattr(options, needed):
                command.error(f"--{name.replace('_', '-')} needs --{needed.replace('_', '-')}")


def parse(whole: EnvironmentParser, words: list[str]) -> argparse.Namespace:
    """Return the options of the command line and of the environment; exit with 2 for what cannot be understood."""
    found: dict[str, str] = {}
    if words[:1] == ["serve"]:
        try:
            found = options_in(os.environ, words)
        except ValueError as error:
            whole.commands["serve"].error(str(error))
        whole.commands["serve"].variables = {word.partition("=")[0]: variable for variable, word in found.items()}
    options, unknown = whole.parse_known_args([*words[:1], *found.values(), *words[1:]])
    command = whole.commands.get(words[0], whole) if words else whole
    for variable in [variable for variable, word in found.items() if word in unknown]:
        unknown.remove(found[variable])
        # Others may have variables that begin like this.
        meant = variable_of(command.closest(found[variable]))
        complain(f"{variable} is no option{meant and f', {meant} is one'}; it is ignored")
    if unknown:
        meant = command.closest(unknown[0])
        command.error(f"unrecognized arguments: {' '.join(unknown)}{meant and f' (did you mean {meant}?)'}")
    return options


def parser() -> EnvironmentParser:
    """Return the parser of the whole command line."""
    prog = "rawws" if Path(sys.argv[0]).stem == "rawws" else "python -m rawws"
    as_written = argparse.RawDescriptionHelpFormatter
    whole = EnvironmentParser(prog=prog, description="A WebSocket server, and a client.", allow_abbrev=False)
    whole.add_argument("--version", action=ShowVersion, nargs=0, help="show the version, and what it runs on")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "serve",
        usage=f"{prog} serve MODULE:OBJECT [options]",
        help="run a handler of yours: `async def handler(ws): ...`, or a rawws.Handler",
        description=SERVE,
        epilog=SERVE_EXAMPLES.format(prog=prog) + ENVIRONMENT + STATUS,
        formatter_class=as_written,
        allow_abbrev=False,
    )
    run.set_defaults(command=serve_application)
    run.add_argument("target", metavar="MODULE:OBJECT", type=target_of, help="for example chat:chat")
    add_asgi(run)
    add_where(run)
    run.add_argument(
        "--workers", type=workers_of, default=1, metavar="N", help="processes on one port; auto is one for each core"
    )
    run.add_argument(
        "--backplane",
        metavar="URL",
        help="the engine that joins the hubs of all servers, such as redis://HOST; others see a command line, so a "
        "password rather in RAWWS_BACKPLANE",
    )
    add_tls(run)
    add_limits(run)
    add_end(run)
    add_admin(run)
    add_reload(run)

    demo = commands.add_parser(
        "demo",
        help="run a page with an echo, a chat room and a feed, to see it work",
        description=DEMO,
        allow_abbrev=False,
    )
    demo.set_defaults(command=serve_demo)
    add_where(demo, unix=False)
    add_tls(demo)
    demo.add_argument("--open", action="store_true", help="open the page in a browser")
    terminal.add_commands(commands, prog)
    topics.add_topic_commands(commands, prog)
    looking.add_looking_commands(commands, prog)
    backplanes.add_backplane_commands(commands, prog)
    gateway.add_gateway_command(commands, prog)
    whole.commands = commands.choices
    return whole


@final
class ShowVersion(argparse.Action):
    """Print what runs here, when it is asked for and not before."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print, and exit with 0."""
        write_output(f"{product()}\n".encode())
        parser.exit()
