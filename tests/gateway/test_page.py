"""The page about the gateway tells the truth: its file is right, its programs run, its tables are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rawws.gateway.config import AppConfig, AppLimits, GatewayConfig
from rawws.gateway.loading import read_config
from tests.cli.commands import port, rawws_command
from tests.gateway.instances import instances
from tests.gateway.running import app_file
from tests.processes import ROOT

PAGE = (ROOT / "docs/run/gateway.md").read_text(encoding="utf-8")
# Of what other pages tell, or of faces that have none yet.
ELSEWHERE = {"apps", "apis", "drain", "jwt", "calls", "hooks", "messages"}


def block(language: str) -> str:
    [found] = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_file_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APP_SECRET", "secret")
    (tmp_path / "old").write_text("old secret")
    config = read_config(block("toml").replace("/run/secrets", str(tmp_path)))
    assert config.apps[0].most_members("presence-hall-1") == 500
    assert config.apps[0].limits.channels == 200


def test_the_program_publishes(tmp_path: Path) -> None:
    with instances(tmp_path, app_file().replace('"3"', '"1"')) as [process]:
        program = re.sub(r"^ {3}", "", block("python"), flags=re.MULTILINE)
        known = {"KEY": "278d425bdf160c739803", "SECRET": "7ad3773142a6692b25b8", "8765": str(port(process))}
        for word, value in known.items():
            program = program.replace(word, value)
        exec(compile(program, "gateway.md", "exec"), {})


def test_the_commands_are_those_that_there_are() -> None:
    commands = [line.partition("#")[0].split() for line in block("sh").splitlines()]
    assert [words[:3] for words in commands] == [["rawws", "gateway", "gateway.toml"]] * 3
    assert rawws_command(*commands[0][1:])[-1] == "--init"


@pytest.mark.parametrize("table", [GatewayConfig, AppConfig, AppLimits])
def test_every_key_of_the_file_is_in_a_table(table: type[GatewayConfig | AppConfig | AppLimits]) -> None:
    told = {name for row in re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE) for name in re.findall(r"\w+", row)}
    for field in dataclasses.fields(table):
        assert field.name in told | ELSEWHERE | {"channel"}, field.name
