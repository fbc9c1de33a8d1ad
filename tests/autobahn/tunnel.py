"""Tunnel: a WebSocket over HTTP/1.1 to one over HTTP/2 (RFC 8441), for a fuzzing client that knows HTTP/1.1 alone.

Each TCP connection becomes a stream of the one connection to the server. Behind the handshakes every octet goes through
as it is, and the end of the one side is the end of the other. HTTP/2 is spoken by h2, not by the code under test.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import NoSuchStreamError, StreamClosedError

from rawws.net.transports import abort_transport
from rawws.protocol.handshake import accept_key

if TYPE_CHECKING:
    from h2.events import Event

HOST: Final = "127.0.0.1"
READ_SIZE: Final = 65536

# An extended CONNECT has none of these (RFC 8441 section 5); Host is its :authority.
LEFT_OUT: Final = frozenset({"host", "upgrade", "connection", "sec-websocket-key"})


@final
class Carried:
    """One TCP connection and its stream."""

    __slots__ = ("answer", "over", "writer")

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer: Final = writer
        # The head of the server's answer.
        self.answer: Final[asyncio.Future[dict[str, str]]] = asyncio.get_running_loop().create_future()
        # The stream is.
        self.over: Final = asyncio.Event()


@final
class Tunnel:
    """The connection to the server."""

    __slots__ = ("_changed", "_core", "_greeted", "_reader", "_streams", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer
        self._core: Final = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._streams: Final[dict[int, Carried]] = {}
        # The server has said that it takes WebSockets so; a window is larger, or a stream is gone.
        self._greeted: Final = asyncio.Event()
        self._changed: Final = asyncio.Event()
        self._core.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._core.data_to_send())

    async def read(self) -> None:
        """Take what the server sends, until it ends the connection, which it is not to do."""
        while data := await self._reader.read(READ_SIZE):
            for event in self._core.receive_data(data):
                self._take(event)
            self._flush()
        raise ConnectionError("the server ended the connection")

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                if self._core.remote_settings.enable_connect_protocol:
                    self._greeted.set()
                self._changed.set()
            case WindowUpdated():
                self._changed.set()
            case ResponseReceived(stream_id=number, headers=headers):
                self._streams[number].answer.set_result({str(name): str(value) for name, value in headers})
            case DataReceived(stream_id=number, data=data, flow_controlled_length=length):
                self._streams[number].writer.write(data)
                self._core.acknowledge_received_data(length, number)
            case StreamEnded(stream_id=number):
                with contextlib.suppress(OSError):  # the client went first
                    self._streams[number].writer.write_eof()
                self._end(number)
            case StreamReset(stream_id=number):
                abort_transport(self._streams[number].writer.transport)
                self._end(number)
            case ConnectionTerminated(error_code=code):
                raise ConnectionError(f"the server sent GOAWAY with {code}")

    def _end(self, number: int) -> None:
        self._streams[number].over.set()
        self._changed.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one WebSocket from its handshake to its end."""
        try:
            # One that came to see whether somebody listens says nothing.
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                head = await reader.readuntil(b"\r\n\r\n")
                await self._greeted.wait()
                number = self._core.get_next_available_stream_id()
                await self._open(number, head.decode("latin-1"), writer)
                await self._send_on(number, reader)
                await self._streams[number].over.wait()
        finally:
            writer.close()

    async def _open(self, number: int, head: str, writer: asyncio.StreamWriter) -> None:
        """Do the handshake of both sides."""
        carried = self._streams[number] = Carried(writer)
        request_line, *lines = head.rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        pseudo = {
            ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": request_line.split(" ")[1],
            ":authority": fields["host"],
        }  # fmt: skip
        rest = {name: value for name, value in fields.items() if name not in LEFT_OUT}
        self._core.send_headers(number, list({**pseudo, **rest}.items()))
        self._flush()
        answer = await carried.answer
        status = answer.pop(":status")
        if status != "200":
            raise ConnectionError(f"the server answered with {status}")
        answer |= {
            "upgrade": "websocket", "connection": "upgrade",
            "sec-websocket-accept": accept_key(fields["sec-websocket-key"]),
        }  # fmt: skip
        text = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{text}\r\n".encode())

    async def _send_on(self, number: int, reader: asyncio.StreamReader) -> None:
        """Send what the client sends; its end is the stream's, and where it broke off, that is reset."""
        # The stream may be over before its client is.
        with contextlib.suppress(StreamClosedError, NoSuchStreamError):
            try:
                while data := await reader.read(READ_SIZE):
                    await self._send(number, data)
            except OSError:
                self._core.reset_stream(number, ErrorCodes.CANCEL)
                self._end(number)
            else:
                self._core.end_stream(number)
            self._flush()

    async def _send(self, number: int, data: bytes) -> None:
        while data:
            window = self._core.local_flow_control_window(number)
            size = min(len(data), window, self._core.max_outbound_frame_size)
            if size > 0:
                self._core.send_data(number, data[:size])
                self._flush()
                data = data[size:]
            else:
                self._changed.clear()
                await self._changed.wait()


async def run(port: int) -> None:
    """Connect to the server on `port`, and carry what comes to a port of our own."""
    tunnel = Tunnel(*await asyncio.open_connection(HOST, port))
    async with await asyncio.start_server(tunnel.carry, HOST, 0) as listening:
        print(f"listening on {HOST}:{listening.sockets[0].getsockname()[1]}", flush=True)
        await tunnel.read()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, help="of the server, which speaks HTTP/2 without TLS")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args().port))


if __name__ == "__main__":
    main()
