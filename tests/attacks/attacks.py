"""The attacks: each is a function of a port, the number of hostile connections it holds, and whom it can be tried on.

Found in the advisories of peers: decompression (CVE-2018-1000518), tiny and empty fragments (CVE-2026-48779,
CVE-2026-42786), lengths (CVE-2020-27813, CVE-2020-13935), dribbled frames (CVE-2026-54274), deadlines that each byte
resets (CVE-2026-47073), chunks that are quadratic (CVE-2025-69229), trailers without a limit (CVE-2026-22815), headers
(CVE-2024-37890) and lists in them (CVE-2021-32640, CVE-2020-7662), one bad packet that ends the process
(CVE-2022-21676). The rest is what a peer can do that reads nothing, sends nothing, or does not go.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, final
from urllib.request import urlopen

from .hostile import HANGS, HOST, flood, frame, hold, plain, request, until_closed, upgrade
from .watch import LEAST

__all__ = ["ATTACKS", "Attack"]

MAX_SIZE = 1 << 20
# What was sent is in the buffers of the kernel; the server has so many seconds for it before the client is gone.
WORKS = 0.3
RAWWS_V1 = b"Sec-WebSocket-Protocol: rawws.v1"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"
# All that the attacked server has of history.
WHOLE = "/history?since=earliest&" + "&".join(f"topic=t{number}" for number in range(64))
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@final
class Attack(NamedTuple):
    """One attack; `http` are those that need endpoints which only our server has."""

    name: str
    run: Callable[[int], None]
    connections: int = 1
    http: bool = False
    # Messages that the handler of an echo holds, and not the server; or so many MiB of a hub's history, for each.
    kept: int = 0
    # Whether it is paid for by what it costs: the 99th percentile of other clients is bounded.
    paid: bool = False
    # For how many seconds it is done at least.
    least: float = LEAST


def flooding(data: bytes, times: int, *, first: bytes = b"", count: int = 1, path: str = "/") -> Callable[[int], None]:
    """Return an attack: WebSockets that write and never read."""

    def attack(port: int) -> None:
        with hold(lambda: upgrade(port, path), count) as socks:
            for sock in socks:
                sock.sendall(first)
            flood(socks, data, times)
            time.sleep(WORKS)

    return attack


def bombing(*frames: bytes, times: int = 1, count: int = 1) -> Callable[[int], None]:
    """Return an attack: compressed messages, of which the server may read as many as it likes.

    Where they are many, once: one that is gone counts as a connection until all is taken that came of it.
    """

    def attack(port: int) -> None:
        with hold(lambda: upgrade(port, "/", DEFLATE), count) as socks:
            flood(socks, b"".join(frames), times)
            time.sleep(WORKS if count == 1 else LEAST)

    return attack


def compressed(block: bytes) -> bytes:
    """Return a frame with compressed data."""
    return frame(BINARY, block, rsv1=True)


def zeros(size: int, strategy: int = zlib.Z_DEFAULT_STRATEGY, level: int = 9) -> bytes:
    """Return so many zeros, deflated."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    data = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return (data + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


LARGEST = zeros(1 << 20)

# -- frames


def unfinished_messages(port: int) -> None:
    """As much as is allowed, in two frames, and never the end."""
    half = MAX_SIZE // 2 - 1
    with hold(lambda: upgrade(port), 16) as socks:
        flood(socks, frame(BINARY, bytes(half), fin=False) + frame(CONTINUATION, bytes(half), fin=False))
        time.sleep(0.2)


def announced_lengths(port: int) -> None:
    """Headers that promise up to 2**63 bytes; none of them is a reason to reserve anything."""
    lengths = [MAX_SIZE, MAX_SIZE + 1, 1 << 31, (1 << 32) + 1, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    for length in lengths:
        with upgrade(port) as sock:
            sock.sendall(frame(BINARY, b"some", length=length))
            if length > MAX_SIZE:
                until_closed(sock)


def dribbled_frames(port: int) -> None:
    """Legal frames, every byte alone."""
    data = frame(TEXT, b"x" * 300) + frame(PING, b"y" * 100) + frame(TEXT, b"z", fin=False) + frame(CONTINUATION, b"z")
    with hold(lambda: upgrade(port), 8) as socks:
        for number in range(len(data)):
            for sock in socks:
                sock.sendall(data[number : number + 1])


def violations(port: int) -> None:
    """Each illegal frame there is, and then more, from a peer that does not go."""
    illegal = [
        frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ] + [
        b"\x81\x05hello",
        frame(TEXT, b"x", rsv1=True),
        b"\xa1" + frame(TEXT, b"x")[1:],
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(CONTINUATION, b"x"),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"),
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, struct.pack("!H", 1005)),
        frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
        b"\x82\xfe\x00\x01" + bytes(4) + b"x",
    ]  # fmt: skip
    for data in illegal:
        with upgrade(port) as sock:
            sock.sendall(data)
            flood([sock], frame(BINARY, bytes(1000)), 20)
            until_closed(sock)


def after_the_end(first: bytes) -> Callable[[int], None]:
    """Return an attack: peers that send on when there is nothing more to say, and read nothing."""

    def attack(port: int) -> None:
        with hold(lambda: upgrade(port), 4) as socks:
            flood(socks, first)
            flood(socks, frame(BINARY, bytes(60000)), 300)
            time.sleep(WORKS)

    return attack


# -- connections


def silent_connects(port: int) -> None:
    """Connections on which nothing comes; the server ends them."""
    with hold(lambda: plain(port), 200) as socks:
        for sock in socks:
            until_closed(sock)


def half_requests(port: int) -> None:
    """Half a request each, and no more; the server ends them."""
    with hold(lambda: plain(port), 200) as socks:
        for number, sock in enumerate(socks):
            sock.sendall(request()[: 1 + number % (len(request()) - 2)])
        for sock in socks:
            until_closed(sock)


def dribbled_requests(port: int) -> None:
    """A byte now and then: were the deadline one for each byte, this would never end."""
    data = request("/", b"X-Slow: " + b"x" * 4000)
    with hold(lambda: plain(port), 50) as socks:
        live = list(socks)
        for number in range(len(data)):
            for sock in list(live):
                try:
                    sock.sendall(data[number : number + 1])
                except OSError:
                    live.remove(sock)
            if not live:
                return
            time.sleep(0.02)
    raise AssertionError("a request that took over its time was waited for")


def listener(port: int, name: str) -> int:
    """Return the port of another listener of the program."""
    with urlopen(f"http://{HOST}:{port}/facts", timeout=HANGS) as response:
        found: int = json.load(response)[name]
    return found


def begin_in_each_way(port: int, starts: list[bytes]) -> None:
    """Hold 200 connections that begin with these octets by turns, until the server ends each."""
    with hold(lambda: plain(port), 200) as socks:
        for number, sock in enumerate(socks):
            with suppress(OSError):
                sock.sendall(starts[number % len(starts)])
        for sock in socks:
            until_closed(sock)


def proxy_headers(port: int) -> None:
    """Connections whose PROXY header does not come, does not end, or is none; the server ends them."""
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    starts = [
        b"",
        b"PROXY ",
        b"PROXY TCP4 " + b"1" * 96,
        b"PROXY UNKNOWN " + b"x" * 65536,
        request(),
        signature,
        signature + b"\x21\x11\x10\x00",
        signature + b"\x21\x11\xff\xff" + bytes(65535),
        signature + b"\x21\x11\x10\x00" + bytes(12) + b"\x04\xff\xff" + bytes(4081),
        signature + b"\x20\x00\x10\x00" + bytes(4095),
    ]
    begin_in_each_way(listener(port, "proxied"), starts)


def tls_handshakes(port: int) -> None:
    """TLS handshakes that do not begin, do not end, or are none; the server ends them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=HOST).do_handshake()
    hello = outgoing.read()
    starts = [
        b"",
        hello[:1],
        hello[:100],
        hello,
        hello + hello,
        hello + b"\x17\x03\x03\x40\x00" + bytes(16384),
        b"\x16\x03\x01\xff\xff" + bytes(65535),
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380),
        bytes(65536),
        request(),
    ]
    begin_in_each_way(listener(port, "secured"), starts)


def half_open(port: int) -> None:
    """Connections that end one way only, and others that are reset, at each stage."""
    with hold(lambda: plain(port), 50) as socks, hold(lambda: upgrade(port), 50) as opened:
        for sock in socks[:25]:
            sock.sendall(request()[:50])
        for sock in [*socks, *opened]:
            sock.shutdown(socket.SHUT_WR)
        for sock in [*socks, *opened]:
            until_closed(sock)
    with hold(lambda: plain(port), 50) as socks, hold(lambda: upgrade(port), 50) as opened:
        for sock in [*socks, *opened]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def churn(port: int) -> None:
    """Connections that come and go."""
    for _ in range(1000):
        plain(port).close()


def reconnecting(port: int) -> None:
    """Handshakes, and nothing behind them."""
    for _ in range(300):
        upgrade(port).close()


# -- heads of requests


def bad_heads(port: int) -> None:
    """Heads that are too long, too many, or lists that a careless parser takes quadratic time for."""
    heads = [
        b"GET /" + b"x" * 100_000,
        b"G" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(2000)) + b"\r\n",
        b"\r\n" * 50_000,
        bytes(100_000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    for value in (
        b"Sec-WebSocket-Protocol: b" + b" " * 7000 + b"x",
        b"Sec-WebSocket-Protocol: " + b"," * 7000,
        b"Sec-WebSocket-Extensions: " + b'a;b="' + b"\\" * 7000,
        b"Sec-WebSocket-Extensions: " + b"a; b=" * 1400,
        b"Sec-WebSocket-Extensions: " + b"permessage-deflate, " * 380 + b"permessage-deflate; x=",
        b"Connection: " + b"x, " * 2500 + b"close",
    ):
        heads.append(request("/", value))
    for head in heads:
        with plain(port) as sock:
            with suppress(OSError):
                sock.sendall(head)
            sock.shutdown(socket.SHUT_WR)
            until_closed(sock)


# -- HTTP


def pipelined(port: int) -> None:
    """Requests without end, whose responses nobody reads."""
    with hold(lambda: plain(port, narrow=True), 4) as socks:
        flood(socks, b"GET /facts HTTP/1.1\r\nHost: localhost\r\n\r\n", 50_000)
        time.sleep(WORKS)


def unread(path: str, count: int) -> Callable[[int], None]:
    """Return an attack: requests whose long answers nobody reads."""

    def attack(port: int) -> None:
        with hold(lambda: plain(port, narrow=True), count) as socks:
            for sock in socks:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            time.sleep(1.5)

    return attack


def chunked(body: bytes) -> bytes:
    """Return a request with a chunked body."""
    return b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def chunks(port: int) -> None:
    """Bodies in chunks of a byte, with extensions and trailers without end, and with sizes that are none."""
    bodies = [
        b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n",
        b"1;" + b"x" * 1_000_000,
        b"1;x\r\nx\r\n" * 100_000 + b"0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 200_000,
        b"0\r\nX: " + b"y" * 1_000_000,
        b"f" * 1000,
        b"7fffffffffffffff\r\n" + bytes(2 * MAX_SIZE),
        b"ffffffffffffffff\r\nx",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"1_0\r\nx\r\n0\r\n\r\n",
        b"1\nx\n0\n\n",
        b"1\r\nxx\r\n0\r\n\r\n",
    ]
    for body in bodies:
        with plain(port) as sock:
            flood([sock], chunked(body))
            sock.settimeout(10)
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            until_closed(sock)


def half_bodies(port: int) -> None:
    """Bodies of which a part comes, as large as is allowed."""
    head = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % MAX_SIZE
    with hold(lambda: plain(port), 16) as socks:
        flood(socks, head + bytes(MAX_SIZE - 1))
        time.sleep(0.2)


# -- the hub


def envelopes(port: int) -> None:
    """What is no envelope of rawws.v1, or one too much."""
    texts = [
        b"[" * 100_000,
        b'{"subscribe":' * 50_000,
        b'{"id":' + b"9" * 100_000 + b"}",
        b'{"subscribe": "' + b"\\u0000" * 1000 + b'"}',
        b'{"subscribe": "a", "subscribe": "b"}',
        b'{"subscribe": "a", "since": "' + b"x" * 100_000 + b'"}',
        b'{"subscribe": "' + b"a" * 100_000 + b'"}',
        b'{"publish": "a", "base64": "' + b"=" * 100_000 + b'"}',
        b'{"publish": "a", "data": 1e999999}',
        b'{"__proto__": {"subscribe": "a"}}',
        json.dumps({"subscribe": "a", "join": {"x": "y" * 100_000}}).encode(),
        b"\xef\xbb\xbf{}",
        b"null",
    ]
    with upgrade(port, "/hub", RAWWS_V1) as sock:
        flood([sock], b"".join(frame(TEXT, text) for text in texts))
    with upgrade(port, "/hub", RAWWS_V1) as sock:
        flood([sock], b"".join(frame(TEXT, b'{"subscribe": "topic %d"}' % number) for number in range(20_000)))
    with upgrade(port, "/hub", RAWWS_V1) as sock:
        flood([sock], b"".join(frame(TEXT, b'{"publish": "topic %d", "data": "x"}' % number) for number in range(5000)))
        time.sleep(WORKS)


def patterns(port: int) -> None:
    """Patterns by the thousand; and as many as there can be for the one name that has the most, in a burst, unread."""
    with upgrade(port, "/patterns", RAWWS_V1) as sock:
        texts = [envelope(subscribe=f"{number}/*", pattern=True) for number in range(20_000)]
        flood([sock], b"".join(texts))
    name = "/" * 255
    with upgrade(port, "/patterns", RAWWS_V1) as sock:
        sock.sendall(b"".join(envelope(subscribe=f"{name[:length]}*", pattern=True) for length in range(255)))
        flood([sock], envelope(publish=name, data="x"), 3000)
        time.sleep(WORKS)
    # What it left is matched, and sent to nobody.
    with upgrade(port, "/patterns", RAWWS_V1) as sock:
        comings = [envelope(**{action: "*", "pattern": True}) for action in ("subscribe", "unsubscribe")]
        flood([sock], b"".join([*comings, envelope(publish=name, data="x")]), 1000)
        time.sleep(WORKS)


def undecided(port: int) -> None:
    """The largest messages behind a question whose answer takes a second."""
    with upgrade(port, "/undecided", RAWWS_V1) as sock:
        sock.sendall(frame(TEXT, b'{"subscribe": "slow"}'))
        head = b'{"publish": "a", "data": "'
        flood([sock], frame(TEXT, head + b"x" * (MAX_SIZE - len(head) - 2) + b'"}'), 100)
        time.sleep(WORKS)


def present(port: int) -> None:
    """As much as somebody present may tell of itself, in as many objects, in as many topics."""
    told = json.dumps([{str(number): {}} for number in range(90)]).encode()
    texts = [b'{"subscribe": "topic %d", "join": %b}' % (number, told) for number in range(1000)]
    with upgrade(port, "/hub", RAWWS_V1) as sock:
        sock.sendall(b"".join(frame(TEXT, text) for text in texts))
        time.sleep(WORKS)


def values(port: int) -> None:
    """Messages of as many values as fit into them."""
    texts = [b'{"subscribe": "a", "join": [' + value * (1_000_000 // len(value)) for value in (b"[],", b"{},", b"1,")]
    with upgrade(port, "/hub", RAWWS_V1) as sock:
        flood([sock], b"".join(frame(TEXT, text + b"0]}") for text in texts), 5)
        time.sleep(WORKS)


def growing(port: int) -> None:
    """What grows in JSON and in Python, to a history that somebody reads."""
    message = json.dumps("\x01" * 165_000 + "\U0001f600", ensure_ascii=False)
    with hold(lambda: upgrade(port, "/kept", RAWWS_V1), 2) as (reader, publisher):
        reader.sendall(b"".join(envelope(subscribe=f"t{number}") for number in range(64)))
        for number in range(64):
            publisher.sendall(frame(TEXT, f'{{"publish": "t{number}", "data": {message}}}'.encode()))
            reader.setblocking(False)
            with suppress(BlockingIOError):
                while reader.recv(1 << 20):
                    pass
        time.sleep(WORKS)


def envelope(**fields: object) -> bytes:
    """Return a frame with an envelope of rawws.v1."""
    return frame(TEXT, json.dumps(fields).encode())


def crowding(*said: bytes, times: int, count: int = 1, path: str = "/room") -> Callable[[int], None]:
    """Return an attack: clients that ask for what a crowd of 1,000 pays for, as fast as they are read."""

    def attack(port: int) -> None:
        with hold(lambda: upgrade(port, path, RAWWS_V1), count) as socks:
            flood(socks, b"".join(said), times)
            time.sleep(WORKS)

    return attack


def crowding_posts(port: int) -> None:
    """The same in pipelined requests."""
    body = b'{"publish": "watched", "data": ""}'
    head = b"POST /room HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with hold(lambda: plain(port, narrow=True), 4) as socks:
        flood(socks, head + body, 5000)
        time.sleep(WORKS)


def names(port: int) -> None:
    """Names that nobody published to, as long as a name may be, each touched once: by messages and by requests."""
    name = "%d " + "%%" * 240
    with hold(lambda: upgrade(port, "/joined", b"Sec-WebSocket-Protocol: rawws.v1"), 2) as socks:
        for number, sock in enumerate(socks):
            some = [name % (10_000 * number + each) for each in range(5000)]
            texts = [json.dumps({action: each}) for each in some for action in ("subscribe", "unsubscribe")]
            flood([sock], b"".join(frame(TEXT, text.encode()) for text in texts))
        time.sleep(WORKS)
    with hold(lambda: plain(port, narrow=True), 2) as socks:
        for number, sock in enumerate(socks):
            lines = [f"GET /joined/poll?topic={number}-{each} HTTP/1.1\r\n" for each in range(3000)]
            flood([sock], b"".join(f"{line}Host: localhost\r\n\r\n".encode() for line in lines))
        time.sleep(WORKS)


def faulty(port: int) -> None:
    """Whatever can be asked of a topic whose data cannot be read, by clients that do not wait for the answer."""
    texts = [b'{"subscribe": "bad", "watch": true}', b'{"publish": "bad", "data": "x"}', b'{"presence": "bad"}']
    with hold(lambda: upgrade(port, "/joined", b"Sec-WebSocket-Protocol: rawws.v1"), 20) as socks:
        flood(socks, b"".join(frame(TEXT, text) for text in texts), 20)
        time.sleep(WORKS)
    for path in ("/joined/poll?topic=bad", "/joined/poll?topic=good&topic=bad&since=a", "/joined/stream?topic=bad"):
        for _ in range(20):
            with plain(port) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    # And by one that does: nobody waits.
    with plain(port) as sock:
        sock.sendall(b"GET /joined/poll?topic=bad HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = until_closed(sock)
    if not found.startswith(b"HTTP/1.1 503 ") or b"'bad' is unavailable" not in found:
        raise AssertionError(f"a poll of a topic at fault was answered {found!r}")


ATTACKS = [
    Attack("pings, unread", flooding(frame(PING, b"four"), 600_000)),
    Attack("large pings, unread", flooding(frame(PING, b"x" * 125), 100_000)),
    Attack("pongs that nobody asked for", flooding(frame(PONG, b"four"), 300_000)),
    Attack("large messages, unread", flooding(frame(BINARY, bytes(65536)), 1000)),
    # So many that what each costs is more than the free blocks of such a size that the C library keeps for all.
    Attack("largest messages, unread", flooding(frame(BINARY, bytes(MAX_SIZE)), 30, count=16), 16),
    Attack("empty messages, unread", flooding(frame(BINARY), 300_000)),
    Attack("empty fragments", flooding(frame(CONTINUATION, fin=False), 600_000, first=frame(TEXT, fin=False))),
    Attack(
        "fragments of one byte without end",
        flooding(frame(CONTINUATION, b"x", fin=False), 1_200_000, first=frame(TEXT, fin=False)),
    ),
    Attack(
        "pings between fragments",
        flooding(frame(CONTINUATION, b"x", fin=False) + frame(PING, b"p"), 200_000, first=frame(TEXT, fin=False)),
    ),
    Attack("unfinished messages", unfinished_messages, 16),
    Attack("announced lengths", announced_lengths),
    Attack("dribbled frames", dribbled_frames, 8),
    Attack("violations", violations),
    Attack("more after a violation", after_the_end(frame(3)), 4),
    Attack("more after a close", after_the_end(frame(CLOSE, b"\x03\xe8")), 4),
    Attack("a bomb of dynamic blocks", bombing(compressed(zeros(256 << 20)))),
    Attack("a bomb of fixed blocks", bombing(compressed(zeros(64 << 20, zlib.Z_FIXED)))),
    Attack("a bomb of stored blocks", bombing(compressed(zeros(2 << 20, level=0)))),
    # For each it uses 3.5 MiB, of 20 that came; the pieces that messages are joined of leave holes in the heap.
    Attack("bombs of the largest message", bombing(compressed(LARGEST), times=20, count=16), 16, kept=2),
    Attack("a bomb of text", bombing(frame(TEXT, zeros(64 << 20), rsv1=True))),
    Attack("bombs of the largest text", bombing(frame(TEXT, LARGEST, rsv1=True), times=20, count=16), 16, kept=2),
    Attack("empty stored blocks", bombing(compressed(b"\x00\x00\x00\xff\xff" * 200_000))),
    Attack("final blocks", bombing(compressed(b"\x01\x00\x00\xff\xff" * 200_000))),
    Attack("empty fixed blocks", bombing(compressed(b"\x02\x00" * 500_000))),
    Attack("a bomb in fragments", bombing(frame(BINARY, rsv1=True, fin=False), *[
        frame(CONTINUATION, bytes([octet]), fin=False) for octet in zeros(16 << 20)
    ])),
    Attack("deflated garbage", bombing(*[compressed(bytes([number]) * 50) for number in range(256)])),
    Attack("silent connects", silent_connects, 200, http=True),
    Attack("half requests", half_requests, 200, http=True),
    Attack("dribbled requests", dribbled_requests, 50, http=True),
    Attack("PROXY headers", proxy_headers, 200, http=True),
    Attack("TLS handshakes", tls_handshakes, 200, http=True),
    Attack("half-open connections", half_open, 100, http=True),
    Attack("connections that come and go", churn),
    Attack("handshakes that come and go", reconnecting),
    Attack("heads", bad_heads, http=True),
    Attack("pipelined requests, unread", pipelined, 4, http=True),
    Attack("files, unread", unread("/large", 20), 20, http=True),
    Attack("event streams, unread", unread("/events", 20), 20, http=True),
    Attack("polls", unread("/poll", 100), 100, http=True),
    Attack("chunks", chunks, http=True),
    Attack("half bodies", half_bodies, 16, http=True),
    # One after the other, but a busy server may hear of the end of one behind the next.
    Attack("envelopes of the hub", envelopes, 3, http=True),
    Attack("many objects of somebody present", present, http=True),
    Attack("many values", values, http=True, kept=1),
    Attack("polls of a whole history, unread", unread(WHOLE, 8), 8, http=True),
    Attack("messages behind an open decision", undecided, http=True, kept=2),
    # 8 MiB of history; and of a message and its envelope the text, which has four bytes for each character.
    # 8 MiB of history and what one message is on its way, 13 MiB; the allocator leaves holes of as much between them.
    Attack("text that grows, to a history", growing, 2, http=True, kept=20),
    Attack(
        "publications to a crowd", crowding(envelope(publish="watched", data=""), times=7000), http=True, paid=True
    ),
    Attack(
        "publications to a crowd, of many",
        crowding(envelope(publish="watched", data=""), times=1000, count=16, path="/room/coroutine"),
        16,
        http=True,
        paid=True,
    ),
    Attack("posts to a crowd", crowding_posts, 4, http=True, paid=True),
    Attack("lists of a crowd", crowding(envelope(presence="present"), times=10_000), http=True, paid=True),
    Attack("lists of a crowd, unread", crowding(envelope(id=1, presence="present"), times=500), http=True, paid=True),
    Attack(
        "joins and leaves before a crowd",
        crowding(envelope(subscribe="watched", join=1), envelope(unsubscribe="watched"), times=2000),
        http=True,
        paid=True,
    ),
    Attack("patterns for one name", patterns, 3, http=True, paid=True),
    Attack("names of nothing", names, 4, http=True),
    Attack("a topic that cannot be read", faulty, 20, http=True),
    Attack("callbacks, unread", flooding(frame(BINARY, bytes(1000)), 30_000, path="/callbacks"), http=True),
]  # fmt: skip
