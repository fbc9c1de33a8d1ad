"""The loop limit: an asyncio protocol that parses nothing, counts bytes and writes prepared answers."""

import asyncio
from typing import Final, cast, final

from . import ACCEPT, HOST, Exchange, Options, exchange, run

SHARED: Final = memoryview(bytearray(1 << 18))
ANSWER: Final = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


@final
class Limit(asyncio.BufferedProtocol):
    """No server on the same event loop can do less for a message."""

    __slots__ = ("asked", "batch", "got", "next", "open", "transport")

    def __init__(self, asked: Exchange) -> None:
        self.asked = asked
        self.batch = len(asked.request) // asked.frame_size
        self.got = self.next = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return SHARED

    def buffer_updated(self, nbytes: int) -> None:
        if not self.open:
            self.open = bytes(SHARED[nbytes - 4 : nbytes]) == b"\r\n\r\n"
            self.transport.write(ANSWER if self.open else b"")
            return
        whole, self.got = divmod(self.got + nbytes, self.asked.frame_size)
        if whole == self.batch:
            self.transport.write(self.asked.reply)
        elif whole:
            size = len(self.asked.reply) // self.batch
            self.transport.write(self.asked.reply[self.next * size : (self.next + whole) * size])
            self.next = (self.next + whole) % self.batch


def serve(options: Options) -> None:
    asked = exchange(options.scenario)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Limit(asked), HOST, options.port, ssl=options.tls(), backlog=1024)
        await server.serve_forever()

    run(main(), options)
