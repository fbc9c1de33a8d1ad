"""Dialing: URIs to TCP, TLS and unix connections, also through a proxy (RFC 6455 sections 3 and 4.1, RFC 8305).

Redirects lead from one URI to the next (RFC 9110 section 15.4).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl as ssl_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final
from urllib.parse import quote, unquote, urljoin, urlsplit

from rawws.errors import HandshakeError, InvalidStatus, InvalidURI, ProxyError, SecurityError
from rawws.net.socket import abort_transport
from rawws.protocol.extensions import excerpt
from rawws.protocol.http11 import HeadReader, parse_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from urllib.parse import SplitResult

__all__ = ["Target", "Way", "added_headers", "dial", "follow", "parse_uri", "race"]

# RFC 8305 section 5: "One recommended value for a default delay is 250 milliseconds."
ATTEMPT_DELAY = 0.25
# One of ours: it asks for HTTP/1.1, for servers that would otherwise choose HTTP/2.
ALPN = ["http/1.1"]
PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# What the environment calls the proxy for a URI of this scheme, the best first.
# RFC 6455 4.1: "If multiple proxies are available, the client is encouraged to select a SOCKS5 proxy, or, failing that,
# to prefer the proxy configured for HTTPS connections over the proxy configured for HTTP connections."
PROXY_NAMES = {
    "wss": ("wss", "socks", "https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "https": ("https", "socks", "all"),
    "http": ("http", "socks", "all"),
}
# The schemes of one kind of URI, of which the second is the one with TLS.
WS = ("ws", "wss")
HTTP = ("http", "https")
# As in websockets; browsers follow 20. Enough for every honest chain.
MAX_REDIRECTS = 10
REDIRECTS = frozenset((301, 302, 303, 307, 308))
T = TypeVar("T")


class Target(NamedTuple):
    """Where a URI leads: `authority` is the value of Host, `path` the request-target."""

    uri: str
    secure: bool
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None

    @property
    def scheme(self) -> str:
        """The scheme of the URI."""
        return self.uri.partition(":")[0].lower()

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What a secret for this server is bound to."""
        return self.secure, self.host, self.port


class Way(NamedTuple):
    """How to reach a target: the options of `connect` of the same names, or a `link` that needs no socket."""

    ssl: ssl_module.SSLContext | bool | None = None
    server_hostname: str | None = None
    proxy: str | bool | None = None
    local_addr: tuple[str, int] | None = None
    path: str | None = None
    sock: socket.socket | None = None
    link: Callable[[Callable[[], Any]], asyncio.Transport] | None = None


def parse_uri(uri: str, schemes: tuple[str, str] = WS) -> Target:
    """Take a ws or wss URI apart (RFC 6455 section 3), or one of other `schemes`. Raises InvalidURI."""
    parts, port = _split(uri, "URI")
    plain, tls = schemes
    if parts.scheme not in schemes:
        raise InvalidURI(f"the URI is {uri!r}, it must begin with {plain}:// or {tls}://")
    # RFC 6455 3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used on these
    # URIs."
    if "#" in uri:
        raise InvalidURI(f"the URI {uri!r} has a fragment, none is allowed")
    secure = parts.scheme == tls
    default = 443 if secure else 80
    host = _ascii_host(parts.hostname or "", uri)
    # A zone, as in fe80::1%eth0, has a meaning on this machine only.
    authority = f"[{host.partition('%')[0]}]" if ":" in host else host
    if port is not None and port != default:
        authority += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path = "".join(character if character.isascii() else quote(character) for character in path)
    authorization = None if parts.username is None else _basic(parts)
    return Target(uri, secure, host, default if port is None else port, authority, path, authorization)


def _split(uri: str, what: str) -> tuple[SplitResult, int | None]:
    """Split a URI; `urlsplit` alone would drop a line feed and say nothing."""
    if any(character <= " " or character == "\x7f" for character in uri):
        raise InvalidURI(f"the {what} is {uri!r}, whitespace and control characters are not allowed")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise InvalidURI(f"the {what} is {uri!r}: {error}") from None
    if not parts.hostname:
        raise InvalidURI(f"the {what} is {uri!r}, it has no host")
    return parts, port


def _ascii_host(host: str, uri: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise InvalidURI(f"the URI is {uri!r}, its host is no name: {error}") from None


def _basic(parts: SplitResult) -> str:
    """Return the Authorization of a user name and a password in a URI (RFC 7617)."""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


async def dial(factory: Callable[[], Any], target: Target, way: Way) -> asyncio.Transport:
    """Connect a protocol to the target. Raises OSError, and ProxyError where a proxy refuses."""
    if way.link is not None:
        return way.link(factory)
    loop = asyncio.get_running_loop()
    context = _context(way.ssl, target)
    tls: dict[str, Any] = {}
    if context is not None:
        tls = {"ssl": context, "server_hostname": way.server_hostname or target.host}
    if way.path is not None:
        transport, _ = await loop.create_unix_connection(factory, way.path, **tls)
        return transport
    sock = way.sock
    if sock is None:
        proxy = _proxy_for(target) if way.proxy is True else way.proxy or None
        if proxy is None:
            sock = await race(target.host, target.port, way.local_addr)
        else:
            parts, port = _split_proxy(proxy)
            if parts.scheme == "https":
                return await _through_tls(factory, parts, port, target, way, tls)
            sock = await _through(parts, port, target, way.local_addr)
    return await _hand_over(factory, sock, tls)


async def _hand_over(factory: Callable[[], Any], sock: socket.socket, tls: dict[str, Any]) -> asyncio.Transport:
    """Give a connected socket to the loop, which closes it from here on, also if the TLS handshake fails."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_connection(factory, sock=sock, **tls)
        return transport
    finally:
        # uvloop owns the descriptor and not the socket object. Where the peer resets the connection meanwhile, it
        # forgets to tell the object (0.23), which would later close what has the same number then.
        if type(loop).__module__.partition(".")[0] in {"uvloop", "winloop"}:
            sock.detach()


def _context(ssl: ssl_module.SSLContext | bool | None, target: Target) -> ssl_module.SSLContext | None:
    if not target.secure:
        if ssl:
            raise ValueError(f"ssl is given for {target.uri!r}, it is for wss:// and https:// only")
        return None
    if ssl is False:
        raise ValueError(f"ssl is False for {target.uri!r}, allowed are True, None and a context")
    return ssl if isinstance(ssl, ssl_module.SSLContext) else _default_context()


def _default_context() -> ssl_module.SSLContext:
    context = ssl_module.create_default_context()
    context.set_alpn_protocols(ALPN)
    return context


# -- redirects


async def follow(first: Target, way: Way, attempt: Callable[[Target, Way], Awaitable[T]]) -> T:
    """Return what an attempt gives, at the first target or where redirects lead.

    The attempt raises InvalidStatus for a redirect. Raises it where that leads nowhere, SecurityError where it leads
    from TLS to the open, or where there are too many.
    """
    target, refusal = first, None
    for _ in range(MAX_REDIRECTS + 1):
        # The name in the certificate is that of the first server.
        here = way if target.origin == first.origin else way._replace(server_hostname=None)
        try:
            return await attempt(target, here)
        except InvalidStatus as error:
            refusal, target = error, _redirected(target, way, error)
    status = 0 if refusal is None else refusal.status
    raise SecurityError(status, f"the server redirects over {MAX_REDIRECTS} times, the last to {target.uri!r}")


def _redirected(target: Target, way: Way, refusal: InvalidStatus) -> Target:
    """Return where a refusal sends the client, or raise it."""
    locations = refusal.response.headers.get_all("Location")
    if refusal.status not in REDIRECTS or len(locations) != 1:
        raise refusal
    schemes = WS if target.scheme in WS else HTTP
    # RFC 9110 10.2.2: a fragment may stand in Location, and is for the client.
    uri = urljoin(target.uri, locations[0]).partition("#")[0]
    # A server names its own scheme: http for ws, https for wss.
    for http, own in zip(HTTP, schemes, strict=True):
        if uri.startswith(f"{http}://"):
            uri = own + uri.removeprefix(http)
            break
    try:
        new = parse_uri(uri, schemes)
    except InvalidURI as error:
        raise InvalidStatus(refusal.response, f"the server redirects to {excerpt(locations[0])}: {error}") from None
    if target.secure and not new.secure:
        where = f"from {target.scheme} to {excerpt(uri)}, which is not secret"
        raise SecurityError(refusal.status, f"the server redirects {where}")
    if way.sock is not None or (way.path is not None and new.origin != target.origin):
        given = "sock" if way.sock is not None else "path"
        raise InvalidStatus(refusal.response, f"the server redirects to {excerpt(uri)}, but {given} is given")
    if new.authorization is None and new.origin == target.origin:
        new = new._replace(authorization=target.authorization)
    return new


def added_headers(
    target: Target, first: Target, headers: list[tuple[str, str]], user_agent: str | None
) -> list[tuple[str, str]]:
    """Return the added headers of a request; what may be a secret goes to the origin that it is meant for."""
    # Not Authorization and Cookie alone: tokens have many names.
    if target.origin != first.origin:
        headers = []
    names = {name.lower() for name, _ in headers}
    if target.authorization is not None and "authorization" not in names:
        headers = [("Authorization", target.authorization), *headers]
    if user_agent is not None and "user-agent" not in names:
        headers = [("User-Agent", user_agent), *headers]
    return headers


# -- addresses


async def race(host: str, port: int, local_addr: tuple[str, int] | None = None) -> socket.socket:
    """Connect to the first address of a host that answers, each given a head start of 250 ms (RFC 8305)."""
    loop = asyncio.get_running_loop()
    waiting = interleave(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    sources = {} if local_addr is None else await _sources(local_addr)
    errors: list[OSError] = []
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect_socket(waiting.pop(0), sources)))
            # RFC 8305 5: a failed attempt does not wait for the end of its delay, the next one begins at once.
            delay = ATTEMPT_DELAY if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            while done:
                task = done.pop()
                error = task.exception()
                if error is None:
                    running |= done
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
    finally:
        # RFC 8305 5: "once one of the connection attempts succeeds [...], all other connections attempts that have not
        # yet succeeded SHOULD be canceled."
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)
    raise _one_error(host, errors)


def interleave(found: list[Any]) -> list[Any]:
    """Order what `getaddrinfo` found: the two families in turn, the first one first (RFC 8305 section 4)."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    ordered = [entry for pair in zip(first, other, strict=False) for entry in pair]
    return ordered + first[len(other) :] + other[len(first) :]


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that succeeded when it was not needed any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _one_error(host: str, errors: list[OSError]) -> OSError:
    """Make one error of those of all addresses; of the same kind where they agree, as ConnectionRefusedError."""
    if len(errors) == 1:
        return errors[0]
    numbers = {error.errno for error in errors}
    text = f"no address of {host} answers: {'; '.join(map(str, errors)) or 'it has none'}"
    return OSError(numbers.pop(), text) if len(numbers) == 1 and None not in numbers else OSError(text)


async def _sources(local_addr: tuple[str, int]) -> dict[int, Any]:
    """Return the address to connect from, by its family."""
    found = await asyncio.get_running_loop().getaddrinfo(*local_addr, type=socket.SOCK_STREAM)
    return {entry[0]: entry[4] for entry in reversed(found)}


async def _connect_socket(entry: tuple[Any, ...], sources: dict[int, Any]) -> socket.socket:
    family, kind, proto, _, address = entry
    if sources and family not in sources:
        raise OSError(f"{address[0]} cannot be reached from local_addr, an address of another family")
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if sources:
            sock.bind(sources[family])
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


# -- proxies


def _proxy_for(target: Target) -> str | None:
    """Return the URL of the proxy that the environment or the system names for this target, if any."""
    # It brings an HTTP client and a mail parser, a fifth of the time that `import rawws` would take.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    host = f"[{target.host}]" if ":" in target.host else target.host
    if proxy_bypass(f"{host}:{target.port}"):
        return None
    proxies = getproxies()
    name = next((name for name in PROXY_NAMES[target.scheme] if proxies.get(name)), None)
    if name is None:
        return None
    proxy = proxies[name]
    # Systems name their SOCKS proxy so.
    return proxy.replace("http://", "socks5h://", 1) if name == "socks" else proxy


def _split_proxy(proxy: str) -> tuple[SplitResult, int]:
    parts, port = _split(proxy if "://" in proxy else f"http://{proxy}", "proxy")
    if parts.scheme not in PROXY_PORTS:
        allowed = ", ".join(f"{scheme}://" for scheme in PROXY_PORTS)
        raise InvalidURI(f"the scheme of the proxy is {parts.scheme!r}, allowed are {allowed}")
    return parts, PROXY_PORTS[parts.scheme] if port is None else port


async def _through(parts: SplitResult, port: int, target: Target, local_addr: tuple[str, int] | None) -> socket.socket:
    """Connect to the target through a proxy that is not spoken to in TLS."""
    if parts.scheme != "http":
        return await _socks(parts, port, target, local_addr)
    loop = asyncio.get_running_loop()
    sock = await race(parts.hostname or "", port, local_addr)
    try:
        broken: OSError | None = None
        try:
            await loop.sock_sendall(sock, _connect_request(target, parts))
        except OSError as error:
            # It may have refused before, and ended the connection: its answer can still be read.
            broken = error
        try:
            # One byte at a time: what follows the head belongs to the tunnel.
            await _expect_tunnel(lambda: loop.sock_recv(sock, 1), parts)
        except ProxyError as error:
            if broken is None or error.status:
                raise
            raise broken from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _through_tls(
    factory: Callable[[], Any], parts: SplitResult, port: int, target: Target, way: Way, tls: dict[str, Any]
) -> asyncio.Transport:
    """Connect a protocol to the target through a proxy that is spoken to in TLS, with TLS within it if need be."""
    loop = asyncio.get_running_loop()
    gate = _Gate()
    sock = await race(parts.hostname or "", port, way.local_addr)
    outer = {"ssl": _default_context(), "server_hostname": parts.hostname}
    transport = await _hand_over(lambda: gate, sock, outer)
    try:
        transport.write(_connect_request(target, parts))
        rest = await _expect_tunnel(gate.read, parts)
        # In WebSocket, HTTP and TLS the client speaks first.
        if rest:
            raise ProxyError(0, f"the proxy {parts.hostname} sent {len(rest)} bytes behind its response, none is due")
        if tls:
            inner = await loop.start_tls(transport, gate, tls["ssl"], server_hostname=tls["server_hostname"])
            # None where the connection was lost meanwhile (asyncio up to Python 3.12).
            transport = inner or transport
        if gate.ended:
            raise ConnectionResetError(f"the proxy {parts.hostname} ended the connection")
        protocol = factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if gate.data:
            protocol.data_received(gate.data)
    except BaseException as error:
        abort_transport(transport)
        # Before Python 3.11.8 and 3.12.2, asyncio stumbles over what went wrong in TLS within TLS (CPython #113214).
        if isinstance(error, TypeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    return transport


@final
class _Gate(asyncio.Protocol):
    """Keeps what comes from a proxy until the protocol is there that it is for."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self._came = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data
        self._came.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the cause does not matter
        """Take note that nothing more comes."""
        self.ended = True
        self._came.set()

    async def read(self) -> bytes:
        """Return what came since the last time, nothing at the end."""
        await self._came.wait()
        self._came.clear()
        data, self.data = self.data, b""
        return data


async def _socks(parts: SplitResult, port: int, target: Target, local_addr: tuple[str, int] | None) -> socket.socket:
    """Connect through a SOCKS proxy, which resolves the name itself where its scheme is socks5h or socks4a."""
    try:
        from python_socks import ProxyError as SocksError  # noqa: PLC0415 - optional
        from python_socks import ProxyType  # noqa: PLC0415
        from python_socks.async_.asyncio import Proxy  # noqa: PLC0415
    except ImportError:
        raise ImportError("a SOCKS proxy needs python-socks: pip install 'rawws[socks]'") from None
    kind = ProxyType.SOCKS5 if parts.scheme.startswith("socks5") else ProxyType.SOCKS4
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    proxy = Proxy(kind, parts.hostname or "", port, user, password, parts.scheme in {"socks5h", "socks4a"})
    try:
        sock: socket.socket = await proxy.connect(target.host, target.port, local_addr=local_addr)
    except SocksError as error:
        raise ProxyError(0, f"the proxy {parts.hostname}:{port} answered: {error}") from error
    return sock


def _connect_request(target: Target, parts: SplitResult) -> bytes:
    """Write the request for a tunnel (RFC 9110 section 9.3.6, RFC 6455 section 4.1)."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    # RFC 9112 3.2.3: CONNECT has the authority-form, "only the uri-host and port number", always both.
    request = f"CONNECT {host}:{target.port} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
    if parts.username is not None:
        request += f"Proxy-Authorization: {_basic(parts)}\r\n"
    return request.encode("latin-1") + b"\r\n"


async def _expect_tunnel(read: Callable[[], Awaitable[bytes]], parts: SplitResult) -> bytes:
    """Read the response of a proxy; return what came behind it. Raises ProxyError where it refuses."""
    reader = HeadReader(response=True)
    try:
        complete = False
        while not complete:
            data = await read()
            if not data:
                raise HandshakeError(0, "it ended the connection before its response")
            complete = reader.receive(data)
        response = parse_response(reader.head)
    except HandshakeError as error:
        raise ProxyError(0, f"the proxy {parts.hostname} gave no HTTP response: {error.reason}") from None
    # RFC 9110 9.3.6: "Any 2xx (Successful) response indicates that the sender (and all inbound proxies) will switch to
    # tunnel mode"; any other, "that the tunnel has not yet been formed".
    if not 200 <= response.status < 300:
        headers = tuple(response.headers.raw_items())
        raise ProxyError(response.status, f"the proxy {parts.hostname} answered {response.reason_phrase!r}", headers)
    return reader.rest
