"""Heads: octets in pieces to the verdict on a request or a response, as one value; their seeds and their dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rawws.errors import HandshakeError

from .target import cut, seed

if TYPE_CHECKING:
    from .twins import Twin

__all__ = ["KEY", "REQUEST_SEEDS", "REQUEST_WORDS", "RESPONSE_SEEDS", "RESPONSE_WORDS", "Parser", "Seen"]

# (bytes of a line, number of headers, bytes of a head): the defaults, and small ones that an input can reach.
LIMITS = ((8192, 64, 16384), (200, 8, 300), (60, 16, 200), (120, 3, 120))
# RFC 6455 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Seen(NamedTuple):
    """What became of a head: its start, its fields and what came behind it; or an error; or nothing yet."""

    start: tuple[Any, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    rest: bytes = b""
    error: tuple[int, str, tuple[tuple[str, str], ...]] | None = None


class Parser:
    """Parses the heads of one kind with one twin."""

    def __init__(self, twin: Twin, *, response: bool) -> None:
        self.http11 = twin.load("rawws.protocol.http11")
        self.response = response
        self.limits = [self.http11.Limits(*limits) for limits in LIMITS]
        self._parse = self.http11.parse_response if response else self.http11.parse_request

    def parse(self, pieces: list[bytes], settings: int) -> tuple[Any, Seen]:
        """Return the head, None where there is none, and what can be compared."""
        limits = self.limits[settings & 3]
        reader = self.http11.HeadReader(limits, response=self.response)
        rest = b""
        complete = False
        try:
            for piece in pieces:
                if complete:
                    rest += piece
                elif reader.receive(piece):
                    complete = True
                    rest = reader.rest
                else:
                    held = len(reader._buffer)  # noqa: SLF001 - only it tells what is held
                    assert held <= limits.max_head, f"{held} octets of a head are held, the limit is {limits.max_head}"
            if not complete:
                return None, Seen()
            head = self._parse(reader.head)
        except HandshakeError as error:
            return None, Seen(error=(error.status, error.reason, tuple(error.headers)))
        return head, self.see(head, rest)

    def read(self, data: bytes) -> tuple[int, Any, Seen]:
        """Return the settings that an input begins with, and what becomes of its head, in whatever pieces it comes."""
        settings, octets = data[0], data[2:]
        head, seen = self.parse([octets], settings)
        _, cut_seen = self.parse(cut(octets, data[1]), settings)
        assert cut_seen == seen, (cut_seen, seen)
        return settings, head, seen

    def see(self, head: Any, rest: bytes = b"") -> Seen:
        """Return what can be compared of a head."""
        if self.response:
            start = (head.status, head.reason_phrase, head.http_version)
        else:
            start = (head.method, head.path, head.http_version)
        return Seen(start, tuple(head.headers.raw_items()), rest)


UPGRADE = (
    b"Host: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
REQUESTS = [
    # RFC 6455 1.3.
    b"GET /chat HTTP/1.1\r\n" + UPGRADE + b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n",
    # Chromium.
    (
        b"GET /ws?room=1 HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
        b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like "
        b"Gecko) Chrome/126.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://127.0.0.1:8765\r\n"
        b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
        b"Cookie: a=b; c=d\r\nSec-WebSocket-Key: q4xkcO32u266gldTuKaSOw==\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    ),
    # Firefox.
    (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 "
        b"Firefox/128.0\r\nAccept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Sec-WebSocket-Version: 13\r\nOrigin: null\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Sec-WebSocket-Key: nSPzJR8cW4o3C0M9oKZyvA==\r\nConnection: keep-alive, Upgrade\r\nSec-Fetch-Dest: empty\r\n"
        b"Sec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
        b"Upgrade: websocket\r\n\r\n"
    ),
    # With a frame in the same segment.
    b"GET / HTTP/1.1\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:8765\r\n\r\n",
    b"GET http://example.com:80?a HTTP/1.1\r\nHost: other\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    # RFC 7230 3.2.4 and 3.3.3: folding, a space before the colon, lengths that differ.
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20,
    b"GET /" + b"a" * 220,
]
RESPONSES = [
    # RFC 6455 1.3, and what servers answer else.
    (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    ),
    (
        b"HTTP/1.1 101 \r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-extensions: permessage-deflate; "
        b"server_no_context_takeover; client_no_context_takeover; client_max_window_bits=12\r\n\r\n\x81\x05Hello"
    ),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nServer: nginx/1.22.1\r\n\r\nno",
    b"HTTP/1.0 404\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: wss://example.com/\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13, 8\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 Gr\xfc\xdfe\r\nX:\t\xff \r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 999 ?\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 101 \xff\nUpgrade: a\n\n",
]
REQUEST_SEEDS = [seed(octets, 0, number) for number, octets in enumerate(REQUESTS)]
REQUEST_SEEDS += [seed(octets, number & 3, number) for number, octets in enumerate(REQUESTS)]
RESPONSE_SEEDS = [seed(octets, settings, number) for number, octets in enumerate(RESPONSES) for settings in (0, 1, 12)]
FIELDS = [
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked", b", chunked",
    b"identity", b"Connection: close\r\n", b"Connection: Upgrade\r\n", b"keep-alive", b"Upgrade: websocket\r\n",
    b"websocket", b"h2c", b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"permessage-deflate",
    b"; client_max_window_bits=10", b"; server_no_context_takeover", b"X: y\r\n", b"X:\r\n", b": y\r\n", b"X : y\r\n",
    b" folded\r\n", b"\r\n\r\n", b"\r\n", b"\n", b"\n\n", b"\r", b"\0", b"\t", b" ", b",", b";", b"=", b'"', b"\\",
    b":", b"\x7f", b"\x80", b"\xa0", b"\xd9\xa1", b"\x0b", b"\x85", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0",
    b"HTTP/1.2",
]  # fmt: skip
REQUEST_WORDS = [
    *FIELDS, b"GET ", b"POST ", b"OPTIONS * ", b"CONNECT ", b"get ", b"http://", b"https://b:8/c", b"ws://", b"?",
    b"#", b"%00", b"Host: b\r\n", b"Host: [::1]\r\n", b"Host:\r\n", b"@", b":65536", b"Origin: http://a\r\n",
    b"Origin: null\r\n", b"Expect: 100-continue\r\n", b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Version: 8\r\n", b"\x16\x03\x01", b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n",
    b"Sec-WebSocket-Protocol: chat\r\n", b"chat", b"superchat",
]  # fmt: skip
RESPONSE_WORDS = [
    *FIELDS, b"HTTP/1.1 101 \r\n", b"HTTP/1.1 200 OK\r\n", b" 100 ", b" 204 ", b" 304 ", b" 599 ", b" 600 ", b"H",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", b"Sec-WebSocket-Protocol: superchat\r\n", b"chat",
    b"; server_max_window_bits=8", b"; client_no_context_takeover", b"Date: x\r\n",
]  # fmt: skip
