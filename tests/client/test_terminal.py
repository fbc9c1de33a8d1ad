"""`python -m rawws connect` and `send`, as a person and a script use them: real processes, pipes and a terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, final

import pytest
import trustme

from rawws import Handler, connect, serve
from rawws.cli import terminal as module
from rawws.cli.terminal import Screen, _fit, _width, header_of, seconds_above_0, url_of
from rawws.cli.terminal import legible as _legible
from tests.processes import LOOPBACK, ROOT, Process

TALKER: Final = Path(__file__).with_name("talker.py")
TIMEOUT: Final = 60.0


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with Process([sys.executable, TALKER], listens=True) as server:
        yield f"ws://{LOOPBACK}:{server.port}"


def command(*arguments: str | bytes | Path) -> list[str]:
    return [sys.executable, "-m", "rawws", *map(os.fsdecode, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm-256color"}


def run(*arguments: str | bytes | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        command(*arguments), input=stdin, env=environment(), capture_output=True, timeout=TIMEOUT, check=False
    )
    assert b"Traceback" not in result.stderr, result.stderr.decode()
    return result


# -- send


def test_send_prints_the_first_answer(uri: str) -> None:
    result = run("send", uri, "Grüße")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Grüße\n".encode(), b"")


def test_a_host_and_a_port_are_enough(uri: str) -> None:
    result = run("send", uri.removeprefix("ws://"), "hi")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == run("send", uri, "hi").stdout


def test_send_takes_the_message_from_standard_input(uri: str) -> None:
    assert run("send", uri, "-", stdin="several\nlines ü\n".encode()).stdout == "several\nlines ü\n\n".encode()
    assert run("send", uri, "-", "--binary", stdin=b"\xff\x00\n").stdout == b"\xff\x00\n"


def test_an_answer_may_be_longer_than_a_person_reads(uri: str) -> None:
    result = run("send", uri, "much 3000000")
    assert (result.returncode, len(result.stdout), result.stderr) == (0, 3_000_001, b"")


def test_an_answer_that_cannot_be_printed_is_told(uri: str) -> None:
    for arguments, stdin in ((["send", uri, "hi"], b""), (["connect", uri], b"hi\n")):
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                command(*arguments), input=stdin, env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert (result.returncode, result.stderr) == (
            1,
            b"rawws: cannot write to standard output: No space left on device\n",
        )


def test_the_proxy_of_the_environment_is_used_unless_it_shall_not_be(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    result = run("send", uri, "hi")
    assert (result.returncode, result.stderr) == (
        1,
        f"rawws: cannot connect to {uri}: nothing listens at 127.0.0.1:1\n".encode(),
    )
    assert run("send", uri, "hi", "--proxy", "off").stdout == b"hi\n"


def test_send_without_reply_waits_for_none(uri: str) -> None:
    result = run("send", uri, "silence", "--no-reply")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_send_that_gets_no_answer_in_time_exits_with_4(uri: str) -> None:
    result = run("send", uri, "silence", "--timeout", "0.2")
    assert (result.returncode, result.stderr) == (4, b"rawws: no answer came within 0.2 s\n")


@pytest.mark.parametrize(
    ("message", "status", "line"),
    [
        ("close 1000 enough", 0, ""),
        ("close 1011 oh", 3, "rawws: the connection ended: received 1011 (oh); sent 1011 (oh)\n"),
        ("abort", 3, "rawws: the connection ended: no close frame received; sent 1000\n"),
    ],
)
def test_the_exit_status_tells_how_the_connection_ended(uri: str, message: str, status: int, line: str) -> None:
    for result in (run("send", uri, message), run("connect", uri, stdin=f"{message}\n".encode())):
        assert result.returncode == status
        if message == "abort":
            assert result.stderr.startswith(b"rawws: the connection ended")
        else:
            assert result.stderr.decode() == line


def test_text_that_is_not_utf_8_is_told(uri: str) -> None:
    result = run("send", uri, "-", stdin=b"ab\xff")
    assert (result.returncode, result.stderr) == (
        1,
        b"rawws: the message is not UTF-8 at byte 2; --binary sends it as it is\n",
    )
    result = run("connect", uri, stdin=b"ab\xff\n")
    assert (result.returncode, result.stderr) == (1, b"rawws: the input is not UTF-8; --binary sends it as it is\n")


# -- options


def test_the_options_of_the_handshake_reach_the_server(uri: str) -> None:
    options = ["--header", "X-Token: a: b", "--header", "Cookie:c=1", "--subprotocol", "v2", "--subprotocol", "v1"]
    result = run("send", uri, "headers", *options, "--origin", "https://a.example", "--no-compression")
    headers = [tuple(pair) for pair in json.loads(result.stdout)]
    assert ("X-Token", "a: b") in headers
    assert ("Cookie", "c=1") in headers
    assert ("Sec-WebSocket-Protocol", "v2, v1") in headers
    assert ("subprotocol", "v1") in headers
    assert ("Origin", "https://a.example") in headers
    assert not [name for name, _ in headers if name == "Sec-WebSocket-Extensions"]


def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    with Process([sys.executable, TALKER, tmp_path / "s"]) as server:
        server.wait_for(lambda output: "listening" in output, "it listens")
        assert run("send", "ws://localhost/", "hi", "--uds", tmp_path / "s").stdout == b"hi\n"


def test_a_certificate_is_verified_unless_it_shall_not_be(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Process([sys.executable, TALKER, tmp_path / "server.pem"], listens=True) as server:
        uri = f"wss://{LOOPBACK}:{server.port}"
        assert run("send", uri, "hi", "--ca", tmp_path / "ca.pem").stdout == b"hi\n"
        assert run("send", uri, "hi", "--insecure").stdout == b"hi\n"
        result = run("send", uri, "hi")
        assert result.returncode == 1
        assert b"its certificate is not good: " in result.stderr
        assert b"--ca names an authority, --insecure takes any" in result.stderr


def test_http2_is_used_where_it_is_asked_for_and_there(tmp_path: Path) -> None:
    trustme.CA().issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    def version(uri: str, *options: str) -> str:
        headers: dict[str, str] = dict(json.loads(run("send", uri, "headers", "--insecure", *options).stdout))
        return headers["version"]

    program = [sys.executable, str(TALKER), str(tmp_path / "server.pem")]
    with Process(program, listens=True) as server, Process([*program, "without-http2"], listens=True) as other:
        for port, found, told in (
            (server.port, "2", "HTTP/2"),
            (other.port, "1.1", "HTTP/1.1, for the server offers no HTTP/2 here"),
        ):
            uri = f"wss://{LOOPBACK}:{port}"
            assert version(uri) == "1.1"
            assert version(uri, "--http2") == found
            with Terminal("connect", uri, "--http2", "--insecure") as terminal:
                terminal.until(f"connected to {uri}, {told}")
                terminal.until("> ")
                terminal.type("\x04")
                terminal.until("closed: received 1000; sent 1000")
                assert terminal.status() == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["send", "ws://a:b@localhost", "x", "--http2"],
            "rawws: --http2 is agreed on in TLS, and ws://***@localhost has none: needed is wss://\n",
        ),
        (["send", "http://localhost", "x"], "rawws: the URI is 'http://localhost', it must begin with ws:// or wss://"),
        (["send", ":80", "x"], "rawws: the URI is 'ws://:80', it has no host"),
        (["connect", "localhost:x"], "rawws: the URI is 'ws://localhost:x': Port could not be cast"),
        (["send", "ws://localhost", "x", "--header", "no colon"], "'no colon' is not NAME: VALUE"),
        (["send", "ws://localhost", "x", "--header", "a b: c"], "rawws: the header name 'a b' is not a token"),
        (["send", "ws://localhost", "x", "--timeout", "0"], "'0' is not a time in seconds, more than 0"),
        (["connect", "ws://localhost", "--linger", "x"], "'x' is not a time in seconds, more than 0"),
        (["send", "wss://localhost", "x", "--ca", "/nowhere"], "cannot use the certificates in /nowhere: No such file"),
        (["send", "wss://localhost", "x", "--ca", TALKER], "cannot use the certificates in "),
        (["send", b"ws://localhost/\xff", "x"], "rawws: the URI is 'ws://localhost/\\udcff', it has lone surrogates"),
        (["send", "ws://localhost"], "the following arguments are required: MESSAGE"),
    ],
)
def test_a_wrong_option_is_one_line_and_exits_with_2(arguments: list[str | bytes | Path], line: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert line in result.stderr.decode()


@pytest.mark.parametrize(
    ("target", "options", "line"),
    [
        ("ws://127.0.0.1:1", [], "cannot connect to ws://127.0.0.1:1: nothing listens at 127.0.0.1:1\n"),
        ("127.0.0.1:1/a", [], "cannot connect to ws://127.0.0.1:1/a: nothing listens at 127.0.0.1:1\n"),
        (
            "ws://ali-baba:sesame@127.0.0.1:1",
            [],
            "cannot connect to ws://***@127.0.0.1:1: nothing listens at 127.0.0.1:1\n",
        ),
        ("x:1", ["--uds", "/nowhere"], "cannot connect to ws://x:1: nothing listens at /nowhere: there is no such"),
        ("ws://nowhere.invalid", [], "cannot connect to ws://nowhere.invalid: "),
        (
            "ws://127.0.0.1:1",
            ["--proxy", "http://127.0.0.1:2"],
            "cannot connect to ws://127.0.0.1:1: nothing listens at 127.0.0.1:2\n",
        ),
    ],
)
def test_what_cannot_be_reached_is_one_line_and_exits_with_1(target: str, options: list[str], line: str) -> None:
    for result in (run("send", target, "x", *options), run("connect", target, *options)):
        assert result.returncode == 1
        assert result.stderr.decode().startswith(f"rawws: {line}")
        assert result.stderr.count(b"\n") == 1
        assert result.stdout == b""


def test_tls_where_there_is_none_is_told(uri: str) -> None:
    result = run("send", uri.replace("ws:", "wss:"), "x")
    assert result.returncode == 1
    assert result.stderr.endswith(b": what answers there is not TLS (ws:// and http:// are without it)\n")


def test_a_refused_handshake_is_one_line_and_exits_with_1() -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:

        def refuse() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        target = f"ws://{LOOPBACK}:{listening.getsockname()[1]}"
        result = run("send", target, "x")
        thread.join()
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode().startswith(f"rawws: cannot connect to {target}: ")
    assert b"403" in result.stderr
    assert result.stderr.count(b"\n") == 1


# -- connect in a pipe


def test_in_a_pipe_each_line_is_a_message_and_the_output_is_what_comes(uri: str) -> None:
    result = run("connect", f"{uri}/4", "--linger", "off", stdin=b"one\r\ntwo\n\nfour")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"one\ntwo\n\nfour\n", b"")


def test_at_the_end_of_the_input_it_waits_for_what_still_comes(uri: str) -> None:
    assert run("connect", uri, "--linger", "10", stdin=b"later at last\n").stdout == b"at last\n"
    result = run("connect", uri, "--linger", "0.1", stdin=b"silence\n")
    assert (result.returncode, result.stdout) == (0, b"")
    result = run("connect", uri, "--linger", "off", stdin=b"later at last\nclose 1000\n")
    assert (result.returncode, result.stdout) == (0, b"at last\n")


def test_binary_in_a_pipe_is_copied_unchanged(uri: str) -> None:
    result = run("connect", f"{uri}/2", "--binary", "--linger", "off", stdin=b"\xff\xfe\n\x00\n")
    assert result.stdout == b"\xff\xfe\x00"


def test_a_reader_that_has_enough_ends_it_quietly(uri: str) -> None:
    script = f"yes 'a line' | head -100000 | {' '.join(command('connect', uri))} | head -2"
    result = subprocess.run(
        ["bash", "-c", script + '; echo "${PIPESTATUS[2]}"'],
        env=environment(),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.stdout, result.stderr) == (b"a line\na line\n0\n", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_connection_properly(number: signal.Signals) -> None:
    with Process([sys.executable, TALKER], listens=True) as server:
        process = subprocess.Popen(
            command("connect", f"{LOOPBACK}:{server.port}"),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        says_hi_and_ends(process, number)
        server.wait_for(lambda output: output.endswith("ended with 1000\n"), "it is closed")


def says_hi_and_ends(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hi\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


# -- connect on a terminal


@final
class Terminal:
    """A program on a terminal of 100 columns and 24 rows; `piped` is the one line of its input, if not the terminal.

    `first` is Python that runs before it.
    """

    def __init__(self, *arguments: str, piped: str = "", first: str = "") -> None:
        self.output = ""
        self._status: int | None = None
        program = command(*arguments)
        if first:
            program[1:3] = ["-c", f"{first}\nimport sys; from rawws.cli import main; sys.exit(main.main())"]
        if piped:
            program = ["sh", "-c", f"echo {piped} | {shlex.join(program)}"]
        may_begin, begin = os.pipe()
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            # Not before it is known how the terminal was.
            os.read(may_begin, 1)
            os.execvpe(program[0], program, environment())
        termios.tcsetwinsize(self._fd, (24, 100))
        self.before = termios.tcgetattr(self._fd)
        os.write(begin, b"1")
        os.close(begin)
        os.close(may_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGTERM)
        try:
            self.status()
        finally:
            if self._status is None:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            os.close(self._fd)

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        os.write(self._fd, text.encode() if isinstance(text, str) else text)

    def until(self, text: str) -> str:
        """Return what was written up to this text, and forget it."""
        deadline = time.monotonic() + TIMEOUT
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self._fd, 65536).decode(errors="replace")
                except OSError as error:  # Linux says so when nobody has the terminal open any more
                    assert error.errno == errno.EIO  # noqa: PT017
                    assert text in self.output, self.output
        before, _, self.output = self.output.partition(text)
        return before

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self._status is None:
            assert time.monotonic() < deadline, self.output
            # What is not read may keep it from ending.
            if select.select([self._fd], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    self.output += os.read(self._fd, 65536).decode(errors="replace")
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


def test_a_terminal_shows_no_password(uri: str) -> None:
    with Terminal("connect", uri.replace("ws://", "ws://ali-baba:sesame@")) as terminal:
        seen = terminal.until(uri.replace("ws://", "connected to ws://***@"))
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.status() == 0
        assert "sesame" not in seen + terminal.output


def test_on_a_terminal_there_is_a_prompt_and_what_comes_is_coloured(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until(f"connected to {uri}")
        terminal.until("> ")
        terminal.type("hello\r")
        terminal.until("\x1b[32m<\x1b[0m hello")
        terminal.type("\x04")
        terminal.until("closed: received 1000; sent 1000")
        assert terminal.status() == 0
        assert termios.tcgetattr(terminal._fd) == terminal.before


def test_a_message_goes_above_the_line_that_is_being_typed(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        terminal.type("later surprise\r")
        terminal.until("> ")
        terminal.type("half a line")
        terminal.until("half a line")
        # Save the cursor, make room, insert a row, write, restore the cursor, follow the line down.
        came = terminal.until("\x1b[32m<\x1b[0m surprise\x1b8\x1b[1B")
        assert re.search(r"\x1b7\r?\n\x1b\[1A\x1b\[1L$", came), came
        terminal.type(" done\r")
        terminal.until("\x1b[32m<\x1b[0m half a line done")


def test_a_message_leaves_room_for_the_line_that_is_being_typed(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        terminal.type("lines 40\r")
        # Of 24 rows, one for the prompt and one for what is typed behind the end of it.
        terminal.until("\x1b[22A\x1b[22L")
        terminal.until("... (38 more characters)")


def test_a_pong_is_told_in_milliseconds() -> None:
    with Process([sys.executable, TALKER], listens=True) as server:
        with Terminal("connect", f"{LOOPBACK}:{server.port}", "--ping", "0.01") as terminal:
            took = []
            # One that was asked for while the server stands still, for a third of a second, takes as long.
            for _ in range(20):
                os.kill(server.pid, signal.SIGSTOP)
                time.sleep(0.3)
                os.kill(server.pid, signal.SIGCONT)
                terminal.until("pong after ")
                took.append(float(terminal.until(" ms")))
                if took[-1] >= 100:
                    break
        assert max(took) >= 100


def test_the_history_brings_a_line_back(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        for word in ("first", "second"):
            terminal.type(f"{word}\r")
            terminal.until(f"\x1b[32m<\x1b[0m {word}")
        terminal.type("\x1b[A\x1b[A\r")
        terminal.until("\x1b[32m<\x1b[0m first")


def test_ctrl_c_closes_properly_and_leaves_the_terminal_as_it_was(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        terminal.type("half a li")
        terminal.until("half a li")
        terminal.type("\x03")
        assert terminal.status() == 0
        assert "Traceback" not in terminal.output
        assert termios.tcgetattr(terminal._fd) == terminal.before


def test_an_end_by_the_server_ends_it_while_it_waits_for_a_line(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        terminal.type("close 1011 oh\r")
        terminal.until("rawws: the connection ended: received 1011 (oh); sent 1011")
        assert terminal.status() == 3
        assert termios.tcgetattr(terminal._fd) == terminal.before


# The second line begins only when the first one has ended the connection, and the end is as slow as can be.
LATE = """
import builtins, termios, threading, time
ended, lines, set_attributes, read_line = threading.Event(), [], termios.tcsetattr, builtins.input

def late(prompt):
    lines.append(prompt)
    if len(lines) == 2:
        ended.wait(0.5)
    return read_line(prompt)

def restore(fd, when, attributes):
    set_attributes(fd, when, attributes)
    ended.set()
    for _ in range(50):
        if termios.tcgetattr(fd) != attributes:
            break
        time.sleep(0.01)

builtins.input, termios.tcsetattr = late, restore
"""


def test_a_line_that_begins_while_the_server_ends_it_leaves_the_terminal_as_it_was(uri: str) -> None:
    with Terminal("connect", uri, first=LATE) as terminal:
        terminal.until("> ")
        terminal.type("close 1000\r")
        terminal.until("closed: received 1000")
        assert terminal.status() == 0
        assert termios.tcgetattr(terminal._fd) == terminal.before


def test_binary_and_hostile_messages_are_made_legible(uri: str) -> None:
    with Terminal("connect", uri, "--ping", "0.1") as terminal:
        terminal.until("> ")
        terminal.until("pong after ")
        terminal.type("binary 40\r")
        terminal.until("binary 00 01 02")
        terminal.until("1e 1f ... (40 bytes)")
        terminal.type("hostile\r")
        terminal.until(r"\x1b[31mred\x1b[0m\x07 \x9b\u202e")


def test_a_line_that_is_not_utf_8_is_not_sent(uri: str) -> None:
    with Terminal("connect", uri) as terminal:
        terminal.until("> ")
        terminal.type(b"\xff\r")
        terminal.until("not sent: it is not UTF-8")
        terminal.type("more\r")
        terminal.until("\x1b[32m<\x1b[0m more")


def test_what_comes_to_a_terminal_from_a_pipe_is_coloured_without_a_prompt(uri: str) -> None:
    with Terminal("connect", f"{uri}/1", "--linger", "off", piped="hello") as terminal:
        assert terminal.until("\x1b[32m<\x1b[0m hello\r\n") == ""
        assert terminal.status() == 0
        assert terminal.output == ""


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_there_are_none(uri: str, name: str, value: str) -> None:
    with Terminal("connect", uri, first=f"import os; os.environ[{name!r}] = {value!r}") as terminal:
        terminal.until("> ")
        terminal.type("hello\r")
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.until("< hello"))


@pytest.mark.parametrize(
    ("message", "legible"),
    [
        ("a\tb\nc", "a       b\nc"),
        ("\x00\x1b\x7f\x9b", r"\x00\x1b\x7f\x9b"),
        ("\u202e\ufeff\ue000", r"\u202e\ufeff\ue000"),
        ("👩\u200d👧 漢字 ñ n\u0303", "👩\u200d👧 漢字 ñ n\u0303"),
        (b"", "binary "),
        (b"\xff\x00", "binary ff 00"),
        (bytes(32), "binary " + " ".join(["00"] * 32)),
        (bytes(33), "binary " + " ".join(["00"] * 32) + " ... (33 bytes)"),
    ],
)
def test_no_message_reaches_the_terminal_as_a_command(message: str | bytes, legible: str) -> None:
    assert _legible(message) == legible


@pytest.mark.parametrize(
    ("lines", "fitted"),
    [
        (["abc"], ("abc", 1)),
        ([""], ("", 1)),
        (["a" * 10, "b" * 11], ("a" * 10 + "\n" + "b" * 11, 3)),
        (["漢" * 6], ("漢" * 6, 2)),
        (list("abcde"), ("a\nb\nc\nd\ne", 5)),
        (list("abcdef"), ("a\nb\nc\nd\n... (4 more characters)", 5)),
        (["a", "b" * 100], ("a\n... (101 more characters)", 2)),
        (["a" * 100], ("a" * 20 + "\n... (80 more characters)", 3)),
    ],
)
def test_a_message_takes_no_more_rows_than_there_are(lines: list[str], fitted: tuple[str, int]) -> None:
    assert _fit(lines, 10, 5) == fitted


def test_the_width_counts_columns_and_not_colours() -> None:
    assert _width("\x1b[32m<\x1b[0m 漢n\u0303") == 5


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host:1/a", "ws://host:1/a"),
        ("ws/a", "ws://ws/a"),
        ("ws", "ws://ws"),
        ("HTTP://x", "HTTP://x"),
        ("https:1", None),
        ("Ws:x", None),
    ],
)
def test_a_url_without_a_scheme_gets_one_unless_it_lacks_its_slashes(text: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"{text!r} has no // after {text.partition(':')[0].lower()}:"
        ):
            url_of(text, "ws")
    else:
        assert url_of(text, "ws") == url


@pytest.mark.parametrize("text", ["0", "-1", "inf", "1e400", "nan", "soon", ""])
def test_a_time_is_a_number_above_0_with_an_end(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} is not a time in seconds, more than 0"):
        seconds_above_0(text)


def test_a_header_is_a_name_and_a_value_without_the_spaces_around_them() -> None:
    assert header_of(" X-Token : a: b ") == ("X-Token", "a: b")


async def test_of_a_file_one_line_waits_and_not_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    path.write_bytes((b"x" * 1023 + b"\n") * 64 * 4)
    with path.open() as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        came = 0
        async for line in Screen(False).lines():
            assert line == b"x" * 1023
            # One that was given, one that waits, and one that the thread holds.
            assert os.lseek(lines.fileno(), 0, os.SEEK_CUR) <= 65536 * (1 + (came + 2) // 64)
            came += 1
            await asyncio.sleep(0.001)
    assert came == 256


@pytest.fixture
def no_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with Path(os.devnull).open() as empty:
        monkeypatch.setattr(sys, "stdin", empty)
        yield


@pytest.mark.usefixtures("no_input")
async def test_what_comes_behind_the_end_of_the_input_has_it_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(False)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        # Two times something came meanwhile.
        screen.heard += len(waited) < 3

    async with serve(Handler(), LOOPBACK, 0) as server:
        async with connect(f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}") as ws:
            with monkeypatch.context() as patched:
                patched.setattr(module.asyncio, "sleep", sleep)  # type: ignore[attr-defined]
                await module._send_lines(ws, argparse.Namespace(binary=False, linger=7.0), screen)
    assert waited == [7.0, 7.0, 7.0]
