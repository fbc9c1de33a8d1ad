"""uWebSockets (C++) under callbacks in C, on libuv: `uwebsockets.c`, compiled here with the library of socketify."""

import importlib.util
import os
from pathlib import Path

from . import STREAMED, TEXT, Options, compiled


def library() -> Path:
    """Return the library in socketify's wheel, without loading it."""
    found = importlib.util.find_spec("socketify")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("libsocketify_linux_amd64.so")


def serve(options: Options) -> None:
    with_it = library()
    program = compiled(Path(__file__).with_suffix(".c"), str(with_it), f"-Wl,-rpath,{with_it.parent}")
    words = [str(program), str(options.port)]
    if options.streaming:
        words += [str(STREAMED), TEXT]
    if options.scenario.deflate:
        words.append("--deflate")
    if options.scenario.tls:
        words += ["--tls", str(options.cert)]
    os.execv(program, words)
