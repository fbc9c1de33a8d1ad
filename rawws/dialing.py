"""Dialing: URIs to TCP, TLS and unix connections, also through a proxy (RFC 6455 sections 3 and 4.1, RFC 8305)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl as ssl_module
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from .errors import HandshakeError, InvalidURI, ProxyError
from .protocol.http11 import HeadReader, parse_response

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

__all__ = ["Target", "Way", "dial", "parse_uri", "race"]

# RFC 8305 section 5: "One recommended value for a default delay is 250 milliseconds."
ATTEMPT_DELAY = 0.25
# One of ours: it asks for HTTP/1.1, for servers that would otherwise choose HTTP/2.
ALPN = ["http/1.1"]
PROXY_PORTS = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


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
    def origin(self) -> tuple[bool, str, int]:
        """What a secret for this server is bound to."""
        return self.secure, self.host, self.port


class Way(NamedTuple):
    """How to reach a target: the options of `connect` of the same names."""

    ssl: ssl_module.SSLContext | bool | None = None
    server_hostname: str | None = None
    proxy: str | bool | None = None
    local_addr: tuple[str, int] | None = None
    path: str | None = None
    sock: socket.socket | None = None


def parse_uri(uri: str) -> Target:
    """Take a ws or wss URI apart (RFC 6455 section 3). Raises InvalidURI."""
    parts, port = _split(uri, "URI")
    if parts.scheme not in {"ws", "wss"}:
        raise InvalidURI(f"the URI is {uri!r}, it must begin with ws:// or wss://")
    # RFC 6455 3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used on these
    # URIs."
    if "#" in uri:
        raise InvalidURI(f"the URI {uri!r} has a fragment, none is allowed")
    secure = parts.scheme == "wss"
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


async def dial(factory: Callable[[], Any], target: Target, way: Way) -> None:
    """Connect a protocol to the target. Raises OSError, and ProxyError where a proxy refuses."""
    loop = asyncio.get_running_loop()
    context = _context(way.ssl, target)
    tls: dict[str, Any] = {}
    if context is not None:
        tls = {"ssl": context, "server_hostname": way.server_hostname or target.host}
    if way.path is not None:
        await loop.create_unix_connection(factory, way.path, **tls)
        return
    sock = way.sock
    if sock is None:
        proxy = _proxy_for(target) if way.proxy is True else way.proxy or None
        if proxy is None:
            sock = await race(target.host, target.port, way.local_addr)
        else:
            sock = await _through(proxy, target, way.local_addr)
    await _hand_over(factory, sock, tls)


async def _hand_over(factory: Callable[[], Any], sock: socket.socket, tls: dict[str, Any]) -> None:
    """Give a connected socket to the loop, which closes it from here on, also if the TLS handshake fails."""
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(factory, sock=sock, **tls)
    finally:
        # uvloop owns the descriptor and not the socket object. Where the peer resets the connection meanwhile, it
        # forgets to tell the object (0.23), which would later close what has the same number then.
        if type(loop).__module__.partition(".")[0] in {"uvloop", "winloop"}:
            sock.detach()


def _context(ssl: ssl_module.SSLContext | bool | None, target: Target) -> ssl_module.SSLContext | None:
    if not target.secure:
        if ssl:
            raise ValueError(f"ssl is given for {target.uri!r}, it is for wss:// only")
        return None
    if ssl is False:
        raise ValueError(f"ssl is False for {target.uri!r}, allowed are True, None and a context")
    if isinstance(ssl, ssl_module.SSLContext):
        return ssl
    context = ssl_module.create_default_context()
    context.set_alpn_protocols(ALPN)
    return context


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
    host = f"[{target.host}]" if ":" in target.host else target.host
    if urllib.request.proxy_bypass(f"{host}:{target.port}"):
        return None
    proxies = urllib.request.getproxies()
    # RFC 6455 4.1: "If multiple proxies are available, the client is encouraged to select a SOCKS5 proxy, or, failing
    # that, to prefer the proxy configured for HTTPS connections over the proxy configured for HTTP connections."
    names = ("wss", "socks", "https", "all") if target.secure else ("ws", "socks", "https", "http", "all")
    name = next((name for name in names if proxies.get(name)), None)
    if name is None:
        return None
    proxy = proxies[name]
    # Systems name their SOCKS proxy so.
    return proxy.replace("http://", "socks5h://", 1) if name == "socks" else proxy


async def _through(proxy: str, target: Target, local_addr: tuple[str, int] | None) -> socket.socket:
    """Connect to the target through a proxy."""
    parts, port = _split(proxy if "://" in proxy else f"http://{proxy}", "proxy")
    if parts.scheme not in PROXY_PORTS:
        allowed = ", ".join(f"{scheme}://" for scheme in PROXY_PORTS)
        raise InvalidURI(f"the scheme of the proxy is {parts.scheme!r}, allowed are {allowed}")
    if port is None:
        port = PROXY_PORTS[parts.scheme]
    if parts.scheme != "http":
        return await _socks(parts, port, target, local_addr)
    sock = await race(parts.hostname or "", port, local_addr)
    try:
        await _tunnel(sock, target, parts)
    except BaseException:
        sock.close()
        raise
    return sock


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


async def _tunnel(sock: socket.socket, target: Target, parts: SplitResult) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110 section 9.3.6, RFC 6455 section 4.1)."""
    loop = asyncio.get_running_loop()
    host = f"[{target.host}]" if ":" in target.host else target.host
    # RFC 9112 3.2.3: CONNECT has the authority-form, "only the uri-host and port number", always both.
    request = f"CONNECT {host}:{target.port} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
    if parts.username is not None:
        request += f"Proxy-Authorization: {_basic(parts)}\r\n"
    await loop.sock_sendall(sock, request.encode("latin-1") + b"\r\n")
    reader = HeadReader(response=True)
    try:
        # One byte at a time: what follows the head belongs to the tunnel.
        complete = False
        while not complete:
            data = await loop.sock_recv(sock, 1)
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
