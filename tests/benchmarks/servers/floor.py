"""The floor: an epoll in C that parses nothing, counts bytes and sends prepared answers; `floor.c`, compiled here."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from . import Options, exchange
from .limit import ANSWER

SOURCE: Final = Path(__file__).with_suffix(".c")
PROGRAM: Final = Path(__file__).resolve().parents[3] / "build" / "floor"


def serve(options: Options) -> None:
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", PROGRAM, SOURCE], check=True)
    asked = exchange(options.scenario)
    numbers = (options.port, asked.frame_size, len(asked.request) // asked.frame_size, len(ANSWER))
    with tempfile.NamedTemporaryFile() as file:
        file.write(ANSWER + asked.reply)
        file.flush()
        # It opens what is inherited: the file itself has no name any more.
        os.set_inheritable(file.fileno(), True)
        os.execv(PROGRAM, [str(PROGRAM), *map(str, numbers), f"/proc/self/fd/{file.fileno()}"])
