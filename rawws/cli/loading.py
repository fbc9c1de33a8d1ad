"""Loading: MODULE:OBJECT to what `serve` takes, and every mistake to one line."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rawws.http.routes import Route, Routes
from rawws.net.handlers import Handler, check_arguments, check_handler
from rawws.server.probes import healthz, readyz

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from rawws.http.application import HttpApplication
    from rawws.server.options import ServerHandler

__all__ = ["CommandError", "as_application", "as_handler", "load_object"]


class CommandError(Exception):
    """What the command cannot do, in one line."""


def load_object(module: str, name: str) -> object:
    """Import what MODULE:OBJECT names; raises CommandError that says in one line what is wrong with it."""
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = f"{module}.".startswith(f"{error.name}.")
        why = f"there is no module {error.name!r} in {Path.cwd()} or installed" if missing else _fault(error)
        if missing:
            why += _meant(module, [path.stem for path in Path.cwd().glob("*.py")])
        raise CommandError(f"cannot import {module!r}: {why}") from error
    except Exception as error:  # whatever the module of the user raised
        raise CommandError(f"cannot import {module!r}: {_fault(error)}") from error
    for attribute in name.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise CommandError(f"{module!r} has no {name!r}{_meant(attribute, dir(found))}") from None
    return found


def _meant(word: str, known: Iterable[str]) -> str:
    """Say what was probably meant."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def as_application(found: object, target: str, options: argparse.Namespace) -> ServerHandler:
    """Return an ASGI application as `serve` takes it; raises CommandError for what is none."""
    from rawws.integrations.asgi import Application  # noqa: PLC0415 - only this option needs it

    try:
        app = found() if options.factory else found  # type: ignore[operator]  # what it raises is told
    except Exception as error:  # whatever the function of the user raised
        raise CommandError(f"{target} returned no application: {_fault(error)}") from error
    try:
        application = Application(app, root_path=options.root_path, lifespan=options.lifespan)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{target}: {error}") from error
    return _with_probes(application) if options.probes else application


def _with_probes(application: HttpApplication) -> Routes:
    """Return what answers the probes and Prometheus, and leaves all the rest to an application."""
    from rawws.metrics import endpoint  # noqa: PLC0415 - only this option needs them
    from rawws.topics.core import known_hubs  # noqa: PLC0415 - as above

    try:
        metrics = endpoint(*known_hubs())
    except ImportError as error:
        raise CommandError(f"--probes: {error}") from error
    probes = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return Routes([*(Route(path, probe) for path, probe in probes.items()), Route("/{rest:path}", application)])


def as_handler(found: object, target: str) -> ServerHandler:
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
