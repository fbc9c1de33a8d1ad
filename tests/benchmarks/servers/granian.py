"""granian: Rust HTTP under its own RSGI interface, one worker, one thread, uvloop."""
# mypy: disable-error-code="import-not-found"

from typing import Any

from granian import Granian
from granian.constants import Interfaces, Loops, RuntimeModes

from . import HOST, STREAMED, TEXT, Options


async def echo(_scope: Any, protocol: Any) -> None:
    ws = await protocol.accept()
    while (received := await ws.receive()).kind:
        if received.kind == 2:
            await ws.send_str(received.data)
        else:
            await ws.send_bytes(received.data)


async def stream(_scope: Any, protocol: Any) -> None:
    ws = await protocol.accept()
    while (await ws.receive()).kind:
        for _ in range(STREAMED):
            await ws.send_str(TEXT)


def serve(options: Options) -> None:
    cert = options.cert if options.scenario.tls else None
    Granian(
        f"{__name__}:{'stream' if options.streaming else 'echo'}",
        address=HOST,
        port=options.port,
        interface=Interfaces.RSGI,
        loop=Loops(options.loop),
        runtime_mode=RuntimeModes.st,
        workers=1,
        log_enabled=False,
        backlog=1024,
        ssl_cert=cert,
        ssl_key=cert,
    ).serve()
