"""The client's part of the scenario, played by `websocket-client`, which is synchronous and does not compress."""

from __future__ import annotations

import sys

from websocket import ABNF, WebSocket, create_connection

from tests.interop import scenario
from tests.interop.scenario import digest

TIMEOUT = 60


def play(base: str) -> scenario.Report:
    """Visit every path."""
    ws = create_connection(f"{base}/echo", timeout=TIMEOUT)
    echoed = [echo(ws, message) for message in scenario.MESSAGES]
    fragmented = [echo_fragments(ws, parts) for parts in scenario.FRAGMENTED]
    ws.ping(scenario.PING)
    opcode, pong = ws.recv_data(control_frame=True)
    assert opcode == ABNF.OPCODE_PONG
    close = scenario.CLOSE_BY_CLIENT
    ws.send_close(close["code"], close["reason"].encode())
    closed_by_client = end(ws)
    ws = create_connection(f"{base}/compressed", timeout=TIMEOUT)
    compressed = echo(ws, scenario.COMPRESSIBLE)
    ws.close()
    ws = create_connection(f"{base}/fragments", timeout=TIMEOUT)
    fragments = [receive(ws), receive(ws)]
    ws.close()
    ws = create_connection(f"{base}/ping", timeout=TIMEOUT)
    pinged = str(ws.recv())
    ws.close()
    ws = create_connection(f"{base}/close", timeout=TIMEOUT)
    closed_by_server = end(ws)
    return {
        "echoed": echoed,
        "fragmented": fragmented,
        "pong": pong.decode(),
        "closed_by_client": closed_by_client,
        "compressed": compressed,
        "deflate": False,
        "fragments": fragments,
        "pinged": pinged,
        "closed_by_server": closed_by_server,
    }


def echo(ws: WebSocket, message: str | bytes) -> str:
    """Send a message and return the digest of what comes back."""
    ws.send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)
    return receive(ws)


def echo_fragments(ws: WebSocket, parts: list[str] | list[bytes]) -> str:
    """Send a message in fragments and return the digest of what comes back."""
    opcode = ABNF.OPCODE_TEXT if isinstance(parts[0], str) else ABNF.OPCODE_BINARY
    # In a continuation frame the library would take a str for Latin-1.
    octets = [part.encode() if isinstance(part, str) else part for part in parts]
    for index, part in enumerate(octets):
        fin = int(index == len(octets) - 1)
        ws.send_frame(ABNF(fin, opcode=ABNF.OPCODE_CONT if index else opcode, data=part))
    return receive(ws)


def receive(ws: WebSocket) -> str:
    """Return the digest of the next message."""
    return digest(ws.recv())


def end(ws: WebSocket) -> scenario.Close:
    """Return what the next frame, a Close, says, and close."""
    opcode, payload = ws.recv_data()
    assert opcode == ABNF.OPCODE_CLOSE
    ws.close()
    return {"code": int.from_bytes(payload[:2], "big"), "reason": payload[2:].decode()}


if __name__ == "__main__":
    scenario.print_report(play(sys.argv[1]))
