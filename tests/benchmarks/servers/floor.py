"""The floor: an epoll in C that parses nothing, counts bytes and sends prepared answers; `floor.c`, compiled here."""

import os
import tempfile
from pathlib import Path

from . import Options, compiled, exchange
from .limit import ANSWER


def serve(options: Options) -> None:
    program = compiled(Path(__file__).with_suffix(".c"))
    asked = exchange(options.scenario)
    numbers = (options.port, asked.frame_size, len(asked.request) // asked.frame_size, len(ANSWER))
    with tempfile.NamedTemporaryFile() as file:
        file.write(ANSWER + asked.reply)
        file.flush()
        # It opens what is inherited: the file itself has no name any more.
        os.set_inheritable(file.fileno(), True)
        os.execv(program, [str(program), *map(str, numbers), f"/proc/self/fd/{file.fileno()}"])
