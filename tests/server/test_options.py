"""The options of a server: each is said once, and the same wherever it is taken; mypy knows the names and the types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import rawws
from rawws import testing
from rawws.integrations import asgi
from rawws.server.options import ListenOptions, ServerOptions


async def handler(ws: rawws.WebSocket) -> None:
    await ws.send(await ws.recv())


@pytest.mark.parametrize(
    ("function", "more"),
    [
        (rawws.serve, {"host", "port", "path", "mode", "sock", "reuse_port", "proxy_protocol"}),
        (rawws.run, {"host", "port", "path", "mode", "sock", "reuse_port", "proxy_protocol"}),
        (asgi.serve, {"host", "port", "path", "mode", "sock", "reuse_port", "proxy_protocol", "root_path", "lifespan"}),
        (rawws.unix_serve, {"path", "mode", "proxy_protocol"}),
        (testing.serve, set()),
    ],
    ids=["serve", "run", "asgi.serve", "unix_serve", "testing.serve"],
)
def test_all_that_serve_take_the_same_options(function: Callable[..., Any], more: set[str]) -> None:
    _, *parameters = inspect.signature(function).parameters.values()
    assert {parameter.name for parameter in parameters} == {field.name for field in fields(ServerOptions)} | more
    positional = [found.name for found in parameters if found.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == [name for name in ("host", "port") if name in more] or positional == ["path"]


def test_an_option_that_there_is_not_is_an_error_also_of_types() -> None:
    # What the user called is named, and not the class that has its options.
    with pytest.raises(TypeError, match=r"^serve\(\) .*'hard_limt'"):
        rawws.serve(handler, "127.0.0.1", 0, hard_limt=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^unix_serve\(\) .*'hard_limt'"):
        rawws.unix_serve(handler, "/nowhere", hard_limt=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^run\(\) .*'hard_limt'"):
        rawws.run(handler, "127.0.0.1", 0, hard_limt=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^serve\(\) .*'hard_limt'"):
        testing.serve(handler, hard_limt=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^serve\(\) .*'hard_limt'"):
        asgi.serve(handler, "127.0.0.1", 0, hard_limt=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^serve\(\) got multiple values for argument 'port'"):
        rawws.serve(handler, "127.0.0.1", 0, port=0)  # type: ignore[misc]


def test_an_option_of_another_type_is_an_error_also_of_types() -> None:
    with pytest.raises(TypeError, match="max_size is str"):
        rawws.serve(handler, "127.0.0.1", 0, max_size="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="handler is str"):
        rawws.serve("nonsense", "127.0.0.1", 0)  # type: ignore[arg-type]


def test_what_serves_is_a_function_callbacks_routes_or_an_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    for serves in (handler, rawws.Handler(), rawws.Routes(), asgi.Application(app)):
        assert rawws.serve(serves, "127.0.0.1", 0, hard_limit=3) is not None


def test_options_do_not_change() -> None:
    options = ListenOptions("127.0.0.1", 0)
    with pytest.raises(AttributeError):
        options.port = 1  # type: ignore[misc]
    assert ServerOptions(max_size=3).at(path="/a") == ListenOptions(path="/a", max_size=3)
