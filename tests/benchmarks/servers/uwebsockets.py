"""uWebSockets (C++) under callbacks in C, on libuv: `uwebsockets.c`, compiled here with the library of socketify."""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Final

from . import STREAMED, TEXT, Options

SOURCE: Final = Path(__file__).with_suffix(".c")
PROGRAM: Final = Path(__file__).resolve().parents[3] / "build" / "uwebsockets"


def library() -> Path:
    """Return the library in socketify's wheel, without loading it."""
    found = importlib.util.find_spec("socketify")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("libsocketify_linux_amd64.so")


def serve(options: Options) -> None:
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        with_it = library()
        subprocess.run(["cc", "-O2", "-o", PROGRAM, SOURCE, with_it, f"-Wl,-rpath,{with_it.parent}"], check=True)
    words = [str(PROGRAM), str(options.port)]
    if options.streaming:
        words += [str(STREAMED), TEXT]
    if options.scenario.deflate:
        words.append("--deflate")
    if options.scenario.tls:
        words += ["--tls", str(options.cert)]
    os.execv(PROGRAM, words)
