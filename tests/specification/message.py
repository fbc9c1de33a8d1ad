"""The way of one message: a real one through a real server, to docs/understand/message.svg and the table beside it.

`python -m tests.specification.message` sends the frame of RFC 6455 section 5.7 to an echo on the interpreted twin, and
writes down each function that is called. No name of the library stands here: all are those that the interpreter met.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from functools import cache
from html import escape
from types import FrameType
from typing import Any, Final, NamedTuple

import rawws
from tests.processes import LOOPBACK, ROOT
from tests.specification.pages import FOLDER

__all__ = ["PAGE", "PICTURE", "Call", "draw", "filled", "traced"]

PAGE: Final = FOLDER.parent / "message.md"
PICTURE: Final = FOLDER.parent / "message.svg"
BEGIN, END = "<!-- Made by `make docs`: from here -->", "<!-- to here -->"

HANDSHAKE: Final = b"""\
GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"""
HELLO: Final = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")  # 5.7: a single-frame masked text message
ANSWER: Final = bytes.fromhex("81 05 48 65 6c 6c 6f")  # 5.7: a single-frame unmasked text message
KERNEL, HANDLER = "the kernel", "your handler"
SYSTEM_CALLS: Final = {"poll", "readv", "write", "writev", "send"}


class Call(NamedTuple):
    """A function that was called: in which file and line, and by which earlier call."""

    file: str
    name: str
    line: int
    depth: int
    caller: int


class Recorder:
    """What `sys.setprofile` calls: it keeps the calls of the library, of the handler, and of the kernel."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.stack: list[int] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call":
            file = code.co_filename.removeprefix(f"{ROOT}/")
            if file.startswith("rawws/") and "<" not in code.co_qualname:
                self.add(file, code.co_qualname, code.co_firstlineno)
            elif code is echo.__code__:
                self.add(HANDLER, code.co_name, 0)
            else:
                self.stack.append(-1)
        elif event == "return" and self.stack:
            self.stack.pop()
        elif event == "c_call" and arg.__name__ in SYSTEM_CALLS and is_system_call(arg):
            self.add(KERNEL, arg.__name__, 0)
            self.stack.pop()

    def add(self, file: str, name: str, line: int) -> None:
        callers = [index for index in self.stack if index >= 0]
        self.stack.append(len(self.calls))
        self.calls.append(Call(file, name, line, len(callers), callers[-1] if callers else -1))

    def found(self) -> list[Call]:
        """Return the calls, from the one with which the loop tells that a socket is ready."""
        start = next(index for index, call in enumerate(self.calls) if call.file.startswith("rawws/"))
        calls = [call._replace(caller=max(call.caller - start, -1)) for call in self.calls[start:]]
        while calls[-1].file == KERNEL and calls[-1].caller < 0:  # the loop's own, with which it is told to end
            calls.pop()
        return calls


def is_system_call(function: Any) -> bool:
    return function.__module__ == os.write.__module__ or isinstance(function.__self__, socket.socket | select.epoll)


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        ws.send(message)


def talk(port: int, loop: asyncio.AbstractEventLoop, recorder: Recorder) -> None:
    """Be a client: the handshake, one message that is not recorded, and one that is."""

    async def profile(function: Recorder | None) -> None:
        loop.call_soon(sys.setprofile, function)

    with socket.create_connection((LOOPBACK, port), 10) as client, client.makefile("rb") as answers:
        client.sendall(HANDSHAKE)
        while answers.readline() != b"\r\n":
            pass
        for function in (recorder, None):
            client.sendall(HELLO)
            assert answers.read(len(ANSWER)) == ANSWER
            asyncio.run_coroutine_threadsafe(profile(function), loop).result(60)


async def record() -> list[Call]:
    recorder = Recorder()
    async with rawws.serve(echo, LOOPBACK, 0, compression=None, engine="epoll") as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(talk, port, asyncio.get_running_loop(), recorder)
    return recorder.found()


@cache
def traced() -> list[Call]:
    """Return the calls for one message, from a process of the interpreted twin."""
    command = [sys.executable, "-m", "tests.specification.message", "record"]
    here = {**os.environ, "RAWWS_PURE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=True)
    return [Call(*call) for call in json.loads(done.stdout)]


# -- the picture

LEFT, LANE, TOP, ROW = 350, 96, 64, 18
STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.lane { text-anchor: middle; fill: #57606a }
.number { text-anchor: end; fill: #57606a }
.line { stroke: #d0d7de }
.paper { fill: #fff; stroke: #d0d7de }
.handler { fill: #fff8c5 }
.arrow { stroke: #57606a; stroke-width: 1.2; marker-end: url(#head) }
.dot { fill: #57606a }
"""


def lanes(calls: list[Call]) -> list[str]:
    """Return the files in the order in which the message meets them."""
    return list(dict.fromkeys(call.file for call in calls))


def draw(calls: list[Call]) -> str:
    """Return the picture: a row for each call, a column for each file, an arrow from caller to callee."""
    files = lanes(calls)
    width, height = LEFT + LANE * len(files) + 16, TOP + ROW * len(calls) + 16
    columns = {file: LEFT + LANE // 2 + LANE * index for index, file in enumerate(files)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>One message, from the socket to a handler and back: each call, from file to file</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>',
        f'<rect class="paper" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="8"/>',
    ]
    for file, x in columns.items():
        folder, _, name = file.removeprefix("rawws/").rpartition("/")
        parts += [
            f'<text class="lane" x="{x}" y="26">{f"{folder}/" if folder else ""}</text>',
            f'<text class="lane" x="{x}" y="42">{name}</text>',
            f'<line class="line" x1="{x}" y1="{TOP - 12}" x2="{x}" y2="{height - 12}"/>',
        ]
    for index, call in enumerate(calls):
        parts.append(_row(index, call, columns, calls, width))
    return "\n".join([*parts, "</svg>\n"])


def _row(index: int, call: Call, columns: dict[str, int], calls: list[Call], width: int) -> str:
    y, x = TOP + ROW * index, columns[call.file]
    row = ""
    if call.file == HANDLER:
        row += f'<rect class="handler" x="8" y="{y - 9}" width="{width - 16}" height="{ROW}" rx="4"/>'
    row += f'<text class="number" x="28" y="{y + 4}">{index + 1}</text>'
    row += f'<text x="{40 + 10 * call.depth}" y="{y + 4}">{escape(call.name)}</text>'
    start = columns[calls[call.caller].file] if call.caller >= 0 else x
    if start != x:
        end = x - 4 if start < x else x + 4
        row += f'<line class="arrow" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>'
    return f'{row}<circle class="dot" cx="{x}" cy="{y}" r="2.5"/>'


# -- the table


def says(call: Call) -> str:
    """Return the first sentence of a function's docstring."""
    tree = ast.parse((ROOT / call.file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and call.line in {
            node.lineno,
            *(decorator.lineno for decorator in node.decorator_list),
        }:
            first = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            return first.partition(". ")[0].rstrip(".").replace("|", "\\|")
    return ""


def table(calls: list[Call]) -> str:
    """Return a row for each function of the library, with the numbers of its calls."""
    rows: dict[Call, list[int]] = {}
    for number, call in enumerate(calls, 1):
        if call.line:
            rows.setdefault(call._replace(depth=0, caller=0), []).append(number)
    lines = ["| call | function | its docstring |", "|---|---|---|"]
    for call, numbers in rows.items():
        link = f"[`{call.name}`]({os.path.relpath(ROOT / call.file, PAGE.parent)})"
        lines.append(f"| {', '.join(map(str, numbers))} | {link} in `{call.file}` | {says(call)} |")
    return "\n".join(lines)


def filled(text: str, calls: list[Call]) -> str:
    """Return the page with the table of these calls."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table(calls)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the picture and the table."""
    PICTURE.write_text(draw(traced()), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), traced()), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["record"]:
        print(json.dumps(asyncio.run(record())))
    else:
        main()
