"""The fuzzer's targets: their seeds and what was ever found pass on both twins, and what is planted is found."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fuzz.__main__ import FINDINGS
from fuzz.board import Board
from fuzz.hunt import Budget, failure, minimise, mutate
from fuzz.mutator import Mutator
from fuzz.target import cut, load, names
from fuzz.twins import COMPILED, INTERPRETED, Twin, is_compiled
from tests.processes import ROOT

TWINS = [COMPILED, INTERPRETED] if is_compiled() else [INTERPRETED]
EXECUTIONS = 2048
CASES = [(name, twin) for name in names() for twin in TWINS if twin is COMPILED or not load(name).both]
on_each_twin = pytest.mark.parametrize(("name", "twin"), CASES, ids=[f"{name}-{twin.name}" for name, twin in CASES])


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


@on_each_twin
def test_each_seed_passes(name: str, twin: Twin) -> None:
    target = load(name)
    check = target.make(twin)
    behaviours = {check(seed) for seed in target.seeds}
    assert len(behaviours) > 5, "the seeds show little"


@on_each_twin
def test_each_seed_of_another_length_passes(name: str, twin: Twin) -> None:
    check = load(name).make(twin)
    for seed in load(name).seeds:
        for length in (0, 1, 2, len(seed) // 2, max(0, len(seed) - 1)):
            check(seed[:length])


@on_each_twin
def test_what_was_found_once_passes(name: str, twin: Twin) -> None:
    check = load(name).make(twin)
    for file in FINDINGS.glob(f"{name}-*"):
        check(file.read_bytes())


@on_each_twin
def test_so_many_mutations_pass(name: str, twin: Twin, board: Board) -> None:
    target = load(name)
    mutate(target, target.make(twin), Budget(EXECUTIONS, 0, 1), board)
    assert board.executions >= EXECUTIONS
    assert board.behaviours > 5


def test_what_was_found_once_belongs_to_a_target() -> None:
    assert {file.name.rpartition("-")[0] for file in FINDINGS.glob("*")} <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_target_opens_with_its_invariant_and_has_seeds_and_a_dictionary(name: str) -> None:
    target = load(name)
    module = importlib.import_module(f"fuzz.targets.{name}")
    assert "\n\nInvariant: " in str(module.__doc__)
    assert len(target.seeds) >= 10
    assert len(target.words) >= 10
    assert all(target.words)
    assert max(map(len, target.seeds)) <= target.max_length


def test_the_page_lists_every_target() -> None:
    page = (ROOT / "docs" / "understand" / "fuzzing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == names()


def test_the_twins_are_one_compiled_and_one_interpreted() -> None:
    for module in ("rawws.protocol.connection", "rawws.protocol.http11", "rawws_sse.decoder"):
        assert str(INTERPRETED.load(module).__file__).endswith(".py")
        assert str(COMPILED.load(module).__file__).endswith((".so", ".pyd")) == is_compiled()


def test_the_same_number_gives_the_same_inputs() -> None:
    def drawn(number: int) -> list[bytes]:
        mutator = Mutator([b"\0\1seed", b"\0\1another"], [b"word"], 20, number)
        return [mutator.draw() for _ in range(500)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 400
    assert max(map(len, drawn(1))) == 20


def test_pieces_are_those_of_the_octets() -> None:
    octets = bytes(range(256))
    for pieces in range(256):
        assert b"".join(cut(octets, pieces)) == octets
        assert cut(b"", pieces) == []
    assert len({tuple(cut(octets, pieces)) for pieces in range(256)}) > 100


# -- the fuzzer can fail


def lenient(function: Callable[..., Any]) -> Callable[..., None]:
    """The same, but that it never raises."""

    def call(*arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            pass

    return call


def checks_nothing(reader: Any, final: bool) -> None:
    reader.checked = len(reader.held)


def forgets_a_carriage_return(decoder: Any, data: bytes) -> list[bytes]:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def knows_no_limit(extension: Any, stream: Any, data: bytes, limit: int) -> tuple[Any, bytes]:
    return stream, stream.decompress(data)


# (target, module, name, what stands there instead of what stands there): mistakes that somebody could make.
PLANTED: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    ("frames_server", "rawws.protocol.masking", "rotate", lambda _: lambda key, count: key),
    ("frames_client", "rawws.protocol.connection", "parse_close", lambda _: lambda payload: payload.decode()),
    ("messages", "rawws.protocol.messages", "MessageReader.check_text", lambda _: checks_nothing),
    ("sending", "rawws.protocol.frames", "FrameWriter.take", lambda take: lambda writer: take(writer)[::-1]),
    ("deflate", "rawws.protocol.deflate", "PerMessageDeflate._inflate", lambda _: knows_no_limit),
    ("against_zlib", "rawws.protocol.deflate", "WINDOW", lambda _: 4),
    ("extensions", "rawws.protocol.extensions", "TCHARS", lambda tchars: tchars + '"'),
    ("closes", "rawws.protocol.closing", "is_sendable", lambda _: lambda code: code < 5000),
    ("request_heads", "rawws.protocol.http11", "FIELD_OCTETS", lambda octets: octets + b"\0"),
    ("response_heads", "rawws.protocol.handshake", "_check_switch", lenient),
    ("bodies", "rawws.protocol.bodies", "_HEXDIGITS", lambda digits: digits + b"_"),
    ("sse_decoder", "rawws_sse.decoder", "Decoder._split", lambda _: forgets_a_carriage_return),
    ("sse_encoder", "rawws_sse.encoder", "checked", lambda _: lambda field, value, nul: value),
    ("envelopes", "rawws.topics.envelope", "distinct", lambda _: dict),
    ("dialogues", "rawws.topics.rawws_v1", "MISTAKES", lambda mistakes: mistakes[:2]),
    ("against_standard", "rawws_sse.decoder", "BOM", lambda _: b""),
    ("against_wsproto", "rawws.protocol.frames", "check_header", lenient),
    ("against_parsers", "rawws.protocol.http11", "_check_octets", lenient),
    ("http2", "rawws.protocol.http2_messages", "FIELD_OCTETS", lambda octets: octets + b"\0"),
    ("twins_http2", "rawws.protocol.http2", "Http2Endpoint.check_length", lambda _: lambda *arguments: True),
    ("twins_frames", "rawws.protocol.connection", "Connection.settle", lambda _: lambda connection: None),
    ("twins_heads", "rawws.protocol.handshake", "_GUID", lambda _: "258EAFA5-E914-47DA-95CA-C5AB0DC85B12"),
    ("twins_sending", "rawws.protocol.connection", "serialize_close", lambda _: lambda code, reason: b""),
    ("twins_sse", "rawws_sse.decoder", "MAX_RETRY", lambda _: 10),
]


def plant(patch: pytest.MonkeyPatch, module: ModuleType, name: str, change: Callable[[Any], Any]) -> None:
    owner: Any = module
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    patch.setattr(owner, last, change(getattr(owner, last)))


# Where both are compared there must be both.
TO_FIND = [planted for planted in PLANTED if is_compiled() or not load(planted[0]).both]


@pytest.mark.parametrize(
    ("name", "module", "what", "change"), TO_FIND, ids=[f"{name}-{what}" for name, _, what, _ in TO_FIND]
)
def test_a_planted_mistake_is_found(
    monkeypatch: pytest.MonkeyPatch, board: Board, name: str, module: str, what: str, change: Callable[[Any], Any]
) -> None:
    # The fuzzer has an alarm of its own, for which that of the tests makes room.
    signal.alarm(0)
    target = load(name)
    plant(monkeypatch, INTERPRETED.load(module), what, change)
    # The mistake is in the interpreted twin, so the compiled one is right where both are compared.
    check = target.make(COMPILED if target.both else INTERPRETED)
    try:
        mutate(target, check, Budget(60000, 0, 0), board)
    except Exception:
        found = board.data
    else:
        pytest.fail("nothing was found")
    # One that is left would end whoever called, long after.
    assert signal.alarm(0) == 0
    small = minimise(check, found)
    assert len(small) <= len(found)
    assert failure(check, small) is not None
    monkeypatch.undo()
    target.make(COMPILED if target.both else INTERPRETED)(small)


def test_a_mistake_is_planted_in_every_target() -> None:
    assert {name for name, *_ in PLANTED} == set(names())


# -- the command

PLANTED_TARGET = """\
from fuzz.target import Target

def make(twin):
    def check(data):
        if b"bad" in data:
            {what}
        return len(data)

    return check

TARGET = Target(make, [b"good"], [b"a", b"b", b"d"])
"""


def fuzz(tmp_path: Path, *arguments: str | Path, what: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m fuzz`, with one more target that does something where an input has "bad" in it."""
    folder = tmp_path / "more" / "fuzz" / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    if what is not None:
        (folder / "planted.py").write_text(PLANTED_TARGET.format(what=what))
    command = [sys.executable, "-m", "fuzz", *map(str, arguments), "--findings", str(tmp_path / "findings")]
    if not is_compiled():
        command.append("--pure")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "more"), str(ROOT)])}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


# Where atheris is installed, libFuzzer ends a process that crashes or hangs, by statuses of its own.
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise KeyError(7)", "KeyError: 7"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11|failed with exit status 77"),
        ("import os; os._exit(3)", "failed with exit status 3"),
        ("while True: pass", "killed by signal 14|failed with exit status 70"),
    ],
    ids=["an exception", "a crash", "an exit", "a hang"],
)
def test_a_finding_is_saved_and_can_be_run_again(tmp_path: Path, what: str, says: str) -> None:
    ended = fuzz(tmp_path, "planted", "--executions", "1000000", "--timeout", "2", what=what)
    assert ended.returncode == 1, ended
    assert re.search(says, ended.stdout)
    assert "findings: 1" in ended.stdout
    [found] = (tmp_path / "findings").iterdir()
    assert b"bad" in found.read_bytes()
    assert f"python -m fuzz planted --replay {found}" in ended.stdout
    if "KeyError" in says:
        assert found.read_bytes() == b"bad"
    again = fuzz(tmp_path, "planted", "--replay", found, "--timeout", "2")
    assert again.returncode not in {0, 2}, again
    assert found.read_bytes().hex(" ") in again.stdout


def test_without_a_finding_the_status_is_0_and_the_counts_are_printed(tmp_path: Path) -> None:
    ended = fuzz(tmp_path, "closes", "bodies", "--executions", "3000", "--jobs", "2")
    assert ended.returncode == 0, ended
    assert re.search(r"^closes .* 3,\d\d\d executions ", ended.stdout, re.MULTILINE)
    assert re.search(r"^6,\d\d\d executions in .* findings: 0$", ended.stdout, re.MULTILINE)


def test_an_unknown_target_is_named_with_the_known_ones(tmp_path: Path) -> None:
    ended = fuzz(tmp_path, "nothing")
    assert ended.returncode == 2
    assert "unknown: nothing; known: against_parsers, " in ended.stderr
