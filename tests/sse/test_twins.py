"""Both twins do the same; which one runs can be chosen; and neither needs `rawws`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws_sse
from fuzz.twins import INTERPRETED, is_compiled
from rawws_sse import Event
from rawws_sse._twins import SourceFinder, prefer_source
from tests.processes import ROOT
from tests.sse.streams import bytewise, cut, examples, fed, one_line, retries, streams, texts

SUFFIX = EXTENSION_SUFFIXES[0]
MODULES = ("event", "encoder", "decoder")
both_twins = pytest.mark.skipif(
    not any(is_compiled(f"rawws_sse.{name}") for name in MODULES), reason="this process runs the interpreted twin only"
)
# Any field may have what it must not have.
anything = st.none() | texts | one_line | st.integers(-2, 2) | st.binary(max_size=2) | st.just("\ud800")


@pytest.fixture(scope="module")
def pure() -> ModuleType:
    return INTERPRETED.load("rawws_sse")


@both_twins
def test_the_twins_are_one_compiled_and_one_interpreted(pure: ModuleType) -> None:
    assert all(is_compiled(f"rawws_sse.{name}") for name in MODULES), "half a build"
    assert pure.Event is not rawws_sse.Event
    assert str(sys.modules[pure.Decoder.__module__].__file__).endswith("decoder.py")
    assert pure.__all__ == rawws_sse.__all__


def encoded(twin: Any, fields: tuple[Any, ...]) -> bytes | str:
    try:
        return bytes(twin.encode(twin.Event(*fields)))
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@both_twins
@examples(500)
@given(fields=st.tuples(anything, anything, anything, anything | retries, anything))
def test_the_twins_encode_the_same_and_refuse_the_same(pure: ModuleType, fields: tuple[Any, ...]) -> None:
    assert encoded(pure, fields) == encoded(rawws_sse, fields)
    assert repr(pure.Event(*fields)) == repr(Event(*fields))


@both_twins
@examples(500)
@given(data=st.data(), stream=streams(), max_size=st.none() | st.integers(1, 30))
def test_the_twins_decode_the_same(pure: ModuleType, data: st.DataObject, stream: bytes, max_size: int | None) -> None:
    def decoder(limit: int | None) -> Any:
        made = pure.Decoder(limit)
        receive = made.receive

        class Adapted:
            """The interpreted one, with the events and the error of the other."""

            last_event_id = property(lambda self: made.last_event_id)
            retry = property(lambda self: made.retry)

            def receive(self, piece: bytes) -> list[Event]:
                try:
                    return [Event(*event.fields()) for event in receive(piece)]
                except pure.EventTooLarge as error:
                    raise rawws_sse.EventTooLarge(*error.args) from None

            def receive_eof(self) -> None:
                try:
                    made.receive_eof()
                except pure.EventTooLarge as error:
                    raise rawws_sse.EventTooLarge(*error.args) from None

        return Adapted()

    for pieces in ([stream], bytewise(stream), data.draw(cut(stream))):
        assert fed(pieces, max_size, decoder) == fed(pieces, max_size)


def python(program: str, **settings: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "RAWWS_PURE"} | settings
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout.strip()


def test_rawws_sse_is_imported_without_rawws() -> None:
    program = (
        "import sys, rawws_sse; rawws_sse.encode('x');"
        "print([name for name in sys.modules if name.partition('.')[0] == 'rawws'])"
    )
    assert python(program) == python(program, RAWWS_PURE="1") == "[]"


@pytest.mark.parametrize("first", ["rawws_sse", "rawws"])
def test_the_interpreted_twin_can_be_chosen(first: str) -> None:
    program = (
        f"import {first}, sys, rawws_sse; print(*(sys.modules['rawws_sse.' + m].__file__[-3:] for m in {MODULES}))"
    )
    assert python(program, RAWWS_PURE="1") == ".py .py .py"
    built = [any(ROOT.glob(f"rawws_sse/{name}{SUFFIX}")) for name in MODULES]
    assert python(program, RAWWS_PURE="0") == " ".join(SUFFIX[-3:] if there else ".py" for there in built)


def test_a_package_is_given_one_finder_however_often_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    for _ in range(2):
        prefer_source("a_package_of_no_one")
    assert len(sys.meta_path) == before + 1
    assert isinstance(sys.meta_path[0], SourceFinder)
