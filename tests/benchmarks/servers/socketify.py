"""socketify: uWebSockets (C++) under Python callbacks; it brings its own event loop."""
# mypy: disable-error-code="import-not-found, import-untyped"

from typing import Any

from socketify import App, AppListenOptions, AppOptions, CompressOptions

from . import HOST, STREAMED, TEXT, Options


def serve(options: Options) -> None:
    deflate = options.scenario.deflate
    cert = str(options.cert)

    def echo(ws: Any, message: str | bytes, opcode: Any) -> None:
        ws.send(message, opcode, deflate)

    def stream(ws: Any, _message: str | bytes, opcode: Any) -> None:
        for _ in range(STREAMED):
            ws.send(TEXT, opcode)

    behaviour = {
        "compression": CompressOptions.SHARED_COMPRESSOR | CompressOptions.SHARED_DECOMPRESSOR if deflate else 0,
        "max_payload_length": 2**24,
        "max_backpressure": 2**24,
        "idle_timeout": 960,
        "message": stream if options.streaming else echo,
    }
    app = App(AppOptions(key_file_name=cert, cert_file_name=cert) if options.scenario.tls else None)
    app.ws("/*", behaviour)
    app.listen(AppListenOptions(port=options.port, host=HOST))
    app.run()
