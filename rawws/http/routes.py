"""Routes: paths to endpoints (RFC 9110 sections 7.1, 9 and 15.5).

Laws:
1. What is said twice or cannot be said raises ValueError where it is said, not when a request comes.
2. Exact paths go first, by one look-up; then patterns, in the order in which they were said; then an application.
3. A parameter never leads out of its place: it has no empty, `.` or `..` segment, no backslash and no NUL, decoded; and
   only one that takes the rest of the path has a slash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, final
from urllib.parse import quote, unquote

from rawws.errors import HttpError
from rawws.net.handlers import Handler, check_arguments, check_handler
from rawws.protocol.extensions import is_token
from rawws.protocol.http11 import Headers, HttpResponse

from .application import HttpApplication
from .cors import preflight_fields, preflight_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rawws.protocol.http11 import Request

    from .requests import HttpRequest

__all__ = ["NO_PARAMS", "Resource", "Route", "Routes"]

# What the path of an exact route has in braces.
NO_PARAMS: Mapping[str, str] = MappingProxyType({})

Endpoint = TypeVar("Endpoint", bound="Callable[..., Any] | Handler")
Check: TypeAlias = "Callable[[HttpRequest], HttpResponse | None]"

# A segment, or the rest of a path: what stands between braces.
_PARAMETER = re.compile(r"\{([^{}]*)\}")
# RFC 3986 3.3: what may stand in a segment as it is, so that `@` and `%40` are one character there.
_PLAIN = "/:@!$&'()*+,;=~"
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


class Route(NamedTuple):
    """One line of a table of routes: what answers these methods at this path, or a WebSocket there.

    At `/{rest:path}`, the endpoint may be an application, such as `rawws.integrations.asgi.Application`, which answers
    all that no other route does. `cancel` has an asynchronous endpoint cancelled when its client is gone. `check` is a
    plain function that judges a request by its head, before the body is read: the Response that it returns is sent in
    the place of the endpoint's, None has the endpoint answer. It may raise HttpError.
    """

    path: str
    endpoint: Any
    methods: Sequence[str] = ("GET",)
    websocket: bool = False
    cancel: bool = False
    check: Check | None = None


@final
class Resource:
    """What there is at one path: an endpoint for each method, and one for WebSockets."""

    __slots__ = ("application", "cancelled", "checks", "methods", "names", "websocket")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.methods: dict[str, Callable[..., Any]] = {}
        # Those of the methods whose endpoints are cancelled when their clients are gone.
        self.cancelled: set[str] = set()
        # What judges requests with a method before their bodies are read.
        self.checks: dict[str, Check] = {}
        self.websocket: Any = None
        # What answers all of it in the place of endpoints.
        self.application: HttpApplication | None = None

    def find(self, method: str) -> Callable[..., Any] | None:
        """Return the endpoint for a method, that of GET for HEAD, None if there is none."""
        found = self.methods.get(method)
        # RFC 9110 9.1: "All general-purpose servers MUST support the methods GET and HEAD."
        return self.methods.get("GET") if found is None and method == "HEAD" else found

    def allowed(self) -> list[str]:
        """Return the methods that are answered here (RFC 9110 section 10.2.1)."""
        methods = {*self.methods, "OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        if self.websocket is not None:
            methods.add("GET")
        return sorted(methods)

    def check_method(self, method: str) -> None:
        """Raise HttpError with 405 for a method that nothing answers."""
        if method != "OPTIONS" and self.find(method) is None:
            allow = ", ".join(self.allowed())
            raise HttpError(405, f"the method is {method}, allowed are {allow}", (("Allow", allow),))

    def answer_options(self, request: HttpRequest) -> HttpResponse:
        """Say what is answered here; to a browser before a cross-origin request, what its page may send."""
        allowed = ", ".join(self.allowed())
        return HttpResponse(204, Headers([("Allow", allowed), *preflight_fields(request.headers, allowed)]))


@final
class Routes:
    """A table of routes, for `serve` in the place of a handler.

    A path is exact, or has parameters: `{name}` is one segment, `{name:path}` at its end is the rest. Give them by the
    decorators `websocket`, `get`, `post` and `route`, or as a list of Route.
    """

    __slots__ = ("_exact", "_patterns", "_rest")

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._exact: dict[str, Resource] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], Resource]] = {}
        self._rest: Resource | None = None
        for route in routes:
            self.add(route)

    def add(self, route: Route) -> None:
        """Add a route. Raises ValueError for a path or a method that is none, or that has an endpoint already."""
        if not isinstance(route, Route):
            raise TypeError(f"routes has a {type(route).__name__}, allowed are rawws.Route")
        path, endpoint, methods, websocket, cancel, check = route
        if isinstance(endpoint, HttpApplication):
            self._mount(route, endpoint)
            return
        resource = self._resource_at(path)
        if websocket:
            check_handler(endpoint)
            if cancel or check is not None:
                name = "cancel" if cancel else "check"
                raise ValueError(f"{path} is for WebSockets, allowed beside {name} are methods")
            if resource.websocket is not None:
                raise ValueError(f"{path} has an endpoint for WebSockets already")
            resource.websocket = endpoint
            return
        if not callable(endpoint):
            raise TypeError(f"the endpoint of {path} is {type(endpoint).__name__}, allowed is a function")
        check_arguments(endpoint, f"the endpoint of {path}", "request")
        if check is not None and not callable(check):
            raise TypeError(f"the check of {path} is {type(check).__name__}, allowed is a function")
        if check is not None:
            check_arguments(check, f"the check of {path}", "request")
        if isinstance(methods, str) or not methods:
            raise ValueError(f"the methods of {path} are {methods!r}, allowed is a list of at least one")
        for method in methods:
            if not is_token(method) or method != method.upper() or method == "CONNECT":
                raise ValueError(f"a method of {path} is {method!r}, allowed are names such as 'GET'")
            if method in resource.methods:
                raise ValueError(f"{path} has an endpoint for {method} already")
        resource.methods.update(dict.fromkeys(methods, endpoint))
        # That of GET answers HEAD where nothing else does.
        like = {*methods, *({"HEAD"} if "GET" in methods and "HEAD" not in resource.methods else ())}
        if cancel:
            resource.cancelled.update(like)
        if check is not None:
            resource.checks.update(dict.fromkeys(like, check))

    def websocket(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what takes the WebSockets at this path: a coroutine function, or call it with a Handler."""
        return self._decorator(path, (), True)

    def get(self, path: str, *, cancel: bool = False, check: Check | None = None) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers GET, and HEAD, at this path; `cancel` and `check` are those of a Route."""
        return self._decorator(path, ("GET",), False, cancel, check)

    def post(self, path: str, *, cancel: bool = False, check: Check | None = None) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers POST at this path; `cancel` and `check` are those of a Route."""
        return self._decorator(path, ("POST",), False, cancel, check)

    def route(
        self, path: str, methods: Sequence[str], *, cancel: bool = False, check: Check | None = None
    ) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers these methods at this path; `cancel` and `check` are those of a Route."""
        return self._decorator(path, methods, False, cancel, check)

    def find(self, path: str) -> tuple[Resource, Mapping[str, str]]:
        """Return what there is at the path of a request, and the parameters in it; raises HttpError with 404."""
        path = path.partition("?")[0]
        # RFC 9110 9.3.7: "If the request target is an asterisk ("*"), the OPTIONS request applies to the server in
        # general rather than to a specific resource."
        resource = Resource(()) if path == "*" else self._exact.get(path)
        if resource is None and "%" in path:
            # A slash that was encoded is none between segments.
            segments = [_decode(segment) for segment in path.split("/")]
            if not any("/" in segment for segment in segments):
                resource = self._exact.get("/".join(segments))
        if resource is not None:
            return resource, NO_PARAMS
        if "%" in path:
            path = _ESCAPE.sub(_normalize, path)
        for pattern, resource in self._patterns.values():
            found = pattern.fullmatch(path)
            if found is not None:
                values = [_decode(value) for value in found.groups()]
                if all(map(_stays, values, found.groups())):
                    return resource, dict(zip(resource.names, values, strict=True))
        if self._rest is not None:
            return self._rest, NO_PARAMS
        raise HttpError(404, "there is nothing at this path")

    def has_websockets(self) -> bool:
        """Tell whether a WebSocket may be opened at any path."""
        patterns = (resource for _, resource in self._patterns.values())
        found = any(resource.websocket is not None for resource in (*self._exact.values(), *patterns))
        return found or self._rest is not None

    @property
    def application(self) -> HttpApplication | None:
        """What answers all that no other route does, if there is such an application."""
        return None if self._rest is None else self._rest.application

    def _mount(self, route: Route, application: HttpApplication) -> None:
        """Have an application answer the rest."""
        if not re.fullmatch(r"/\{\w+:path\}", route.path):
            raise ValueError(f"the path is {route.path!r}, allowed for an application is '/{{rest:path}}'")
        if route.websocket or route.cancel or route.check is not None or route.methods != ("GET",):
            raise ValueError("the route of an application has more than a path: it answers all itself")
        if self._rest is not None:
            raise ValueError("there is an application for the rest of the paths already")
        self._rest = Resource(())
        self._rest.application = application

    def resource_of(self, request: Request) -> tuple[Resource, Mapping[str, str]]:
        """Return the same for a request. A preflight is answered where there is nothing: its page may read the 404."""
        try:
            return self.find(request.path)
        except HttpError as error:
            method = preflight_method(request)
            if error.status != 404 or not method:
                raise
            nothing = Resource(())
            nothing.methods[method] = nothing.answer_options
            return nothing, NO_PARAMS

    def _resource_at(self, path: str) -> Resource:
        """Return what there is at a path that is about to get a route."""
        if not isinstance(path, str) or path[:1] != "/" or "?" in path or "#" in path:
            raise ValueError(f"the path is {path!r}, it must begin with '/' and have no '?' and no '#'")
        shape, names = _compile(path)
        if shape is None:
            return self._exact.setdefault(path, Resource(()))
        _, resource = self._patterns.setdefault(shape, (re.compile(shape), Resource(names)))
        if resource.names != names:
            raise ValueError(f"{path} names the parameters {names}, another route names them {resource.names}")
        return resource

    def _decorator(
        self,
        path: str,
        methods: Sequence[str],
        websocket: bool,
        cancel: bool = False,
        check: Check | None = None,
    ) -> Callable[[Endpoint], Endpoint]:
        def add(endpoint: Endpoint) -> Endpoint:
            self.add(Route(path, endpoint, methods, websocket, cancel, check))
            return endpoint

        return add


def _compile(path: str) -> tuple[str | None, list[str]]:
    """Return the regular expression of a path and the names of its parameters, None for an exact path."""
    pieces = _PARAMETER.split(path)
    if "{" in "".join(pieces[::2]) or "}" in "".join(pieces[::2]):
        raise ValueError(f"the path is {path!r}, its braces do not pair")
    if len(pieces) == 1:
        return None, []
    shape, names = "", []
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            # What a request has there is percent-encoded.
            shape += re.escape(quote(piece, safe=_PLAIN))
            continue
        name, colon, kind = piece.partition(":")
        last = number == len(pieces) - 2 and not pieces[-1]
        whole = pieces[number - 1].endswith("/") and (last or pieces[number + 1].startswith("/"))
        if not name.isidentifier() or name in names or not whole or (colon and (kind != "path" or not last)):
            allowed = "allowed are {name} for a whole segment and {name:path} at the end, each name once"
            raise ValueError(f"the path {path!r} has {{{piece}}}, {allowed}")
        names.append(name)
        shape += "(.+)" if colon else "([^/]+)"
    return shape, names


def _normalize(escape: re.Match[str]) -> str:
    """Return a character that may stand in a segment as it is; of any other, its escape in capitals."""
    octet = int(escape[0][1:], 16)
    character = chr(octet)
    plain = octet < 128 and (character.isalnum() or character in _PLAIN or character in "-._") and character != "/"
    # RFC 3986 6.2.2.1: the hexadecimal digits of an escape are "case-insensitive".
    return character if plain else escape[0].upper()


def _decode(segment: str) -> str:
    try:
        return unquote(segment, errors="strict") if "%" in segment else segment
    except UnicodeDecodeError:
        raise HttpError(400, f"the path has {segment[:64]!r}, which is not UTF-8") from None


def _stays(value: str, encoded: str) -> bool:
    """Tell whether a parameter stays in its place (law 3)."""
    segments = value.removesuffix("/").split("/")
    if value.count("/") != encoded.count("/") or not {"", ".", ".."}.isdisjoint(segments):
        return False
    return "\\" not in value and "\0" not in value
