"""Scenarios: what is asked of a server, and the very bytes of the question and of the right answer."""

import json
import random
import zlib
from dataclasses import dataclass
from typing import Final, Literal, final

# RFC 6455 section 1.3: its own sample key and accept value; one key for all lets the request be prepared once.
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OFFER: Final = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
STREAMED: Final = 256  # messages that one request of the `stream` scenario asks for
HEAD: Final = (
    "GET /bench HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    "Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0\r\n"
    "Upgrade: websocket\r\nOrigin: {scheme}://127.0.0.1:{port}\r\nSec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\nSec-WebSocket-Key: {key}\r\n{offer}\r\n"
)


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """One part of the report: `batch` messages of `size` bytes are in flight on each of `connections`."""

    name: str
    title: str
    kind: Literal["echo", "stream", "handshake", "idle"] = "echo"
    connections: int = 32
    size: int = 64
    batch: int = 1
    text: bool = True
    tls: bool = False
    deflate: bool = False


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("echo-1", "echo, 64 B text, 1 in flight, 32 connections"),
        Scenario("echo-16", "echo, 64 B text, 16 in flight, 32 connections", batch=16),
        Scenario("ping-pong", "echo, 64 B text, 1 in flight, 1 connection", connections=1),
        Scenario("binary-16k", "echo, 16 KiB binary, 1 in flight, 32 connections", size=16384, text=False),
        Scenario("binary-1m", "echo, 1 MiB binary, 1 in flight, 4 connections", connections=4, size=2**20, text=False),
        Scenario("tls-1", "echo over TLS, 64 B text, 1 in flight, 32 connections", tls=True),
        Scenario("tls-16", "echo over TLS, 64 B text, 16 in flight, 32 connections", tls=True, batch=16),
        Scenario(
            "deflate", "echo, 2 KiB JSON, permessage-deflate, 1 in flight, 32 connections", size=2048, deflate=True
        ),
        Scenario("stream", f"send only, {STREAMED} messages of 64 B text a request, 32 connections", kind="stream"),
        Scenario("handshake", "opening handshake, 2,000 connections", kind="handshake", connections=2000),
        Scenario("idle", "idle memory, 8,000 connections", kind="idle", connections=8000),
        Scenario("scale-1024", "echo, 64 B text, 1 in flight, 1,024 connections", connections=1024),
        Scenario("scale-8000", "echo, 64 B text, 1 in flight, 8,000 connections", connections=8000),
    )
}


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client sends at once and what must come back, to the byte. `messages` is the work that it stands for."""

    request: bytes
    frame_size: int
    reply: bytes
    messages: int
    payloads: list[bytes]


def upgrade(scenario: Scenario, port: int) -> bytes:
    """Return a browser-like request for the opening handshake."""
    offer = f"Sec-WebSocket-Extensions: {OFFER}\r\n" if scenario.deflate else ""
    return HEAD.format(port=port, scheme="https" if scenario.tls else "http", key=KEY, offer=offer).encode()


def message(scenario: Scenario, index: int) -> bytes:
    """Return payload number `index`: all have one length, each is different."""
    source = random.Random(index)
    if not scenario.text:
        return source.randbytes(scenario.size)
    if not scenario.deflate:
        return f"{index:04d} {'the quick brown fox jumps over the lazy dog ' * 2}"[: scenario.size].encode()
    rows: list[dict[str, str | int | float]] = []
    while len(text := json.dumps(rows)) < scenario.size:
        rows.append({"id": 7_000_000 + len(rows), "side": source.choice(["buy", "sell"]), "price": source.random()})
    return f"{text[: scenario.size - 1]}]".encode()


def frame(first: int, payload: bytes, masking_key: bytes = b"") -> bytes:
    """Return one frame (RFC 6455 section 5.2), masked when there is a key."""
    masked, length = 0x80 if masking_key else 0, len(payload)
    if length < 126:
        head = bytes((first, masked | length))
    elif length < 65536:
        head = bytes((first, masked | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    if masking_key:
        mask = (masking_key * (length // 4 + 1))[:length]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(length, "big")
    return head + masking_key + payload


def deflated(payload: bytes) -> bytes:
    """Return the payload compressed as RFC 7692 section 7.2.1 says, without the last four octets."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def exchange(scenario: Scenario) -> Exchange:
    """Prepare the bytes of a scenario. With deflate the reply is the server's choice: it is learned and verified."""
    keys = random.Random(scenario.name)
    first = 0x81 if scenario.text else 0x82
    payloads = [message(scenario, index) for index in range(scenario.batch)]
    if scenario.kind == "stream":
        asked = frame(first, b"%d" % STREAMED, keys.randbytes(4))
        return Exchange(asked, len(asked), frame(first, payloads[0]) * STREAMED, STREAMED, payloads)
    if scenario.deflate:
        asked = frame(first | 0x40, deflated(payloads[0]), keys.randbytes(4))
        return Exchange(asked, len(asked), b"", 1, payloads)
    frames = [frame(first, payload, keys.randbytes(4)) for payload in payloads]
    reply = b"".join(frame(first, payload) for payload in payloads)
    return Exchange(b"".join(frames), len(frames[0]), reply, scenario.batch, payloads)
