"""What the options of the command line take: the least and the most, and what is one too many."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from rawws.cli.arguments import LIMITS, add_end, add_where, target_of, workers_of


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_size", "1", 1),
        ("max_size", "64K", 65_536),
        ("byte_rate", "2m", 2 << 20),
        ("max_connections", "1", 1),
        ("open_timeout", "0.5", 0.5),
        ("message_rate", "0.5", 0.5),
        ("ping_interval", "off", None),
        ("http2", "auto", None),
        ("hosts", " a.example, ,b.example", ["a.example", "b.example"]),
        ("origins", "*", "*"),
        # Programs that are no browsers name none.
        ("origins", "https://a.example", ["https://a.example", None]),
    ],
)
def test_what_an_option_takes_is_what_serve_gets(name: str, text: str, value: Any) -> None:
    kind, _, _ = LIMITS[name]
    assert kind(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("max_size", text) for text in ("0", "-1", "k", "1g", "1.5k", "٣")],
        *[("max_connections", text) for text in ("0", "-1", "1.5", "off", "")],
        *[("open_timeout", text) for text in ("0", "-1", "inf", "nan", "off", "")],
        *[("message_rate", text) for text in ("0", "inf", "x")],
        *[("ping_timeout", text) for text in ("0", "inf", "never")],
        ("http2", "yes"),
        ("origins", "a.example"),
    ],
)
def test_what_an_option_does_not_take_is_named(name: str, text: str) -> None:
    kind, _, _ = LIMITS[name]
    with pytest.raises(argparse.ArgumentTypeError, match=repr(text)):
        kind(text)


def test_processes_are_1_to_999_or_as_many_as_there_are_cores() -> None:
    assert (workers_of("1"), workers_of("999")) == (1, 999)
    assert workers_of("auto") >= 1
    for text in ("0", "1000", "-1", "two", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="1 to 999, or auto"):
            workers_of(text)


def test_a_target_is_a_module_and_a_name() -> None:
    assert target_of("chat:chat") == ("chat", "chat")
    for text in ("chat", "chat:", ":chat", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is not MODULE:OBJECT"):
            target_of(text)


def parser_of(*add: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    for each in add:
        each(parser)
    return parser


def test_a_drain_may_take_no_grace_and_any_time() -> None:
    found = parser_of(add_end).parse_args(["--drain-grace", "0", "--drain-timeout", "off"])
    assert (found.drain_grace, found.drain_timeout) == (0.0, None)


@pytest.mark.parametrize(
    ("option", "texts", "values", "refused"),
    [
        ("--port", ["0", "65535"], [0, 65_535], ["65536", "-1", "http", ""]),
        ("--uds-mode", ["0", "660", "0777"], [0, 0o660, 0o777], ["1000", "00777", "8", "rw", ""]),
        ("--fd", ["0", "3"], [[0], [3]], ["-1", "x", ""]),
    ],
)
def test_ports_permissions_and_descriptors_have_bounds(
    option: str, texts: list[str], values: list[Any], refused: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = parser_of(add_where)
    name = option.strip("-").replace("-", "_")
    assert [getattr(parser.parse_args([f"{option}={text}"]), name) for text in texts] == values
    for text in refused:
        with pytest.raises(SystemExit):
            parser.parse_args([f"{option}={text}"])
        assert f"argument {option}: {text!r}" in capsys.readouterr().err
