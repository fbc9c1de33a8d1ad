"""Gateway in the terminal: a file of TOML to a running gateway, in one process or in several (`gateway`)."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rawws.net.engines import check_engine
from rawws.topics.names import TopicError

from .admin import AdminPlan
from .arguments import add_end, add_engine, add_tls, add_where, workers_of
from .gateway_api import ApiPlan
from .loading import CommandError
from .serve import run_server, tls_of
from .streams import print_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rawws.gateway.config import GatewayConfig
    from rawws.gateway.model import Gateway
    from rawws.net.engines import SocketEngine

__all__ = ["add_gateway_command"]

logger = logging.getLogger("rawws.gateway")

GATEWAY: Final = """\
Run a service of its own for WebSockets, with three faces: clients and server
libraries of Pusher Channels take it for theirs ([[app]]), so do clients and
backends of AWS API Gateway ([[api]]), and rawws.js hears the same channels with
a history (jwt or calls of an [[app]]). Your application, in any language, talks
to it by HTTP. What it serves stands in a file of TOML (docs/run/gateway.md).
"""
EXAMPLES: Final = """
for example:
  {prog} gateway gateway.toml --init      write a file to begin with
  {prog} gateway gateway.toml --check     tell every mistake in it
  {prog} gateway gateway.toml             run it
  {prog} gateway gateway.toml --workers 4

SIGHUP reads the file again: apps, keys, rules and limits; not where it listens,
and not the backplane. Ctrl-C and SIGTERM have all clients reconnect, and end it.

exit status: 0 at the end, 1 where the file has a mistake or something failed,
2 for a wrong option
"""
EXAMPLE: Final = """\
# A gateway (docs/run/gateway.md). A secret may also be "env:NAME" or "file:/path".

[gateway]
listen = ["127.0.0.1:8765"]      # "0.0.0.0:8765" for all addresses of this machine
# api_listen = ["127.0.0.1:8766"]  # the HTTP APIs of your servers there alone, in the place of `listen`
admin = "127.0.0.1:9400"         # probes, metrics and a page; for this machine only
backplane = "workers"            # or the URL of an engine that joins machines: "redis://127.0.0.1:6379/0"

[[app]]
id = "1"
keys = [{{ key = "{key}", secret = "{secret}" }}]
client_events = true
# For rawws.js, too, by tokens of your application (docs/run/own-face.md):
# jwt = {{ algorithms = ["HS256"], audience = "gateway", key = "{token_key}" }}

# For what was written for AWS API Gateway (docs/run/api-gateway.md):
# [[api]]
# id = "chat"
# path = "/prod"
# credentials = [{{ key = "{aws_key}", secret = "{aws_secret}" }}]
#   [[api.route]]
#   key = "$default"
#   url = "http://127.0.0.1:3000/"
"""

# What does not change at a reload.
FIXED: Final = (
    *("listen", "api_listen", "admin", "admin_key", "backplane", "prefix", "trusted_proxies", "engine"),
    *("history_count", "history_age", "message_rate"),
)


def add_gateway_command(commands: Any, prog: str) -> None:
    """Add `gateway` to the subparsers of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "gateway",
        usage=f"{prog} gateway FILE [options]",
        help="run a service for WebSockets that applications use by HTTP, as Pusher is used",
        description=GATEWAY,
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=run_gateway)
    parser.add_argument("file", metavar="FILE", type=Path, help="what it serves, such as gateway.toml")
    parser.add_argument("--check", action="store_true", help="tell every mistake in the file, and end")
    parser.add_argument("--init", action="store_true", help="write an example with fresh secrets to the file, and end")
    add_where(parser, unix=False, default="that of the file")
    parser.add_argument(
        "--workers", type=workers_of, default=1, metavar="N", help="processes on one port; auto is one for each core"
    )
    add_engine(parser, "that of the file")
    add_tls(parser)
    add_end(parser)


def run_gateway(options: argparse.Namespace) -> int:
    """Run a gateway; return 0, or raise CommandError."""
    if options.init:
        return write_example(options.file)
    config = load(options.file)
    from rawws.admin.inspector import add_action, add_subscribers  # noqa: PLC0415 - only this command
    from rawws.gateway.main import (  # noqa: PLC0415 - the same
        face_routes,
        gateway_options,
        hook_actions,
        new_gateway,
        subscriber_of,
    )
    from rawws.gateway.spelling import host_and_port  # noqa: PLC0415 - the same

    from .folders import make_folder  # noqa: PLC0415 - only workers need it
    from .joining import JoinedHubs  # noqa: PLC0415 - the same

    url = config.backplane if "://" in config.backplane else None
    if options.workers > 1 and config.backplane == "none":
        raise CommandError('gateway.backplane is "none", needed for several workers is "workers" or a URL')
    engine = engine_of(options, config)
    admin, joined = admin_of(config), None
    if options.check:
        if url is not None:
            JoinedHubs(url, None, prefix=config.prefix, option="gateway.backplane")
        print_line(f"{options.file} is right: of [[app]] it has {len(config.apps)}, of [[api]] {len(config.apis)}")
        return 0
    if url is not None or options.workers > 1:
        folder = make_folder() if options.workers > 1 else None
        joined = JoinedHubs(url, folder, prefix=config.prefix, option="gateway.backplane")
    hosts, ports = zip(*map(host_and_port, config.listen), strict=True)
    options.host = options.host or list(hosts)
    options.port = ports[0] if options.port is None else options.port
    gateway = new_gateway(config)
    given = gateway_options(gateway) | {"engine": engine}
    given["drain"] = dataclasses.replace(given["drain"], grace=options.drain_grace, timeout=options.drain_timeout)

    api = api_of(config, options, {"drain": given["drain"], "engine": engine})

    @contextlib.asynccontextmanager
    async def surroundings() -> AsyncIterator[Callable[[], object]]:
        async with contextlib.AsyncExitStack() as running:
            try:
                await running.enter_async_context(gateway)
            except (ImportError, TopicError) as error:
                raise CommandError(f"the gateway cannot begin: {error}") from error
            for name, action in hook_actions(gateway).items():
                add_action(name, action)
            add_subscribers(subscriber_of)
            beside = None if api is None else await running.enter_async_context(api.listen(gateway))

            def read_again() -> None:
                reload(gateway, options.file)
                if beside is not None:
                    beside.on_hangup()

            yield read_again

    with contextlib.ExitStack() as held:
        if api is not None and options.workers > 1:
            api = held.enter_context(api.reserve())
        return run_server(
            options,
            face_routes(gateway),
            lambda address: f"listening on ws{'s' if options.ssl_certfile else ''}://{address}",
            given,
            joined,
            admin,
            surroundings,
        )


def engine_of(options: argparse.Namespace, config: GatewayConfig) -> SocketEngine | None:
    """Return who reads and writes the sockets: the command line counts before the file. Raises CommandError."""
    engine: SocketEngine | None = getattr(options, "engine", config.engine)
    try:
        check_engine(engine)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return engine


def api_of(config: GatewayConfig, options: argparse.Namespace, given: dict[str, Any]) -> ApiPlan | None:
    """Return where servers ask that have an address of their own. Raises CommandError for what cannot be."""
    from rawws.gateway.spelling import host_and_port  # noqa: PLC0415 - only this command

    if not config.api_listen:
        return None
    hosts, ports = zip(*map(host_and_port, config.api_listen), strict=True)
    if options.port == ports[0] != 0:
        raise CommandError(f"gateway.api_listen has the port {ports[0]}, which --port says as well")
    given = {**given, "access_log": options.access_log, "ssl": tls_of(options)}
    return ApiPlan(list(hosts), ports[0], given)


def load(file: Path) -> GatewayConfig:
    """Return what a file says. Raises CommandError with all mistakes."""
    from rawws.gateway.config import ConfigError  # noqa: PLC0415 - only this command
    from rawws.gateway.loading import load_config  # noqa: PLC0415 - the same

    try:
        return load_config(file)
    except ConfigError as error:
        count = len(error.mistakes)
        told = "\n".join(f"  {mistake}" for mistake in error.mistakes)
        raise CommandError(f"{file} has {count} mistake{'s' if count > 1 else ''}:\n{told}") from None
    except OSError as error:
        hint = f"; rawws gateway {file} --init writes one" if isinstance(error, FileNotFoundError) else ""
        raise CommandError(f"cannot read {file}: {error.strerror or error}{hint}") from None


def reload(gateway: Gateway, file: Path) -> None:
    """Read the file again; with a mistake in it, all stays as it was."""
    from rawws.gateway.main import open_timeout_of  # noqa: PLC0415 - only this command

    try:
        config = load(file)
    except CommandError as error:
        logger.error("the configuration stays as it was: %s", error)  # noqa: TRY400 - it says it all
        return
    before = gateway.config
    for name in FIXED:
        if getattr(config, name) != getattr(before, name):
            logger.warning("gateway.%s was changed, and needs a restart", name)
    limit, before_limit = open_timeout_of(config), open_timeout_of(before)
    if limit > before_limit:
        told = "handshakes end after %g s as before: a $connect or an authorizer that has longer needs a restart"
        logger.warning(told, before_limit)
    gateway.reload(config)
    logger.info("the configuration was loaded again")


def admin_of(config: GatewayConfig) -> AdminPlan | None:
    """Return where those listen who look on. Raises CommandError for what cannot be."""
    from rawws.admin.guard import check_admin_key  # noqa: PLC0415 - only with an admin
    from rawws.admin.listening import check_reach  # noqa: PLC0415 - the same
    from rawws.gateway.spelling import host_and_port  # noqa: PLC0415 - only this command

    if not config.admin:
        return None
    host, port = host_and_port(config.admin)
    try:
        key = check_admin_key(config.admin_key) if config.admin_key else None
        check_reach(host, key)
    except (ValueError, OSError) as error:
        raise CommandError(f"gateway.admin: {error}; gateway.admin_key has one") from None
    return AdminPlan(host, port, key)


def write_example(file: Path) -> int:
    """Write a file to begin with. Raises CommandError for one that is there already."""
    text = EXAMPLE.format(
        key=secrets.token_hex(10),
        secret=secrets.token_hex(20),
        token_key=secrets.token_hex(32),
        aws_key=secrets.token_hex(10),
        aws_secret=secrets.token_hex(20),
    )
    try:
        with file.open("x", encoding="utf-8") as writing:
            file.chmod(0o600)
            writing.write(text)
    except FileExistsError:
        raise CommandError(f"{file} is there already, and stays as it is") from None
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None
    print_line(f"{file} is written; rawws gateway {file} runs it")
    return 0
