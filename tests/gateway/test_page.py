"""The page about the gateway tells the truth: its file is right, its programs run, its tables are those of the code."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rawws.gateway.config import AppConfig, AppLimits, ChannelRule, GatewayConfig, HookConfig
from rawws.gateway.loading import HOOK_EVENTS, read_config
from tests.cli.commands import port, rawws_command
from tests.gateway.instances import instances
from tests.gateway.running import app_file
from tests.processes import ROOT

PAGE = (ROOT / "docs/run/gateway.md").read_text(encoding="utf-8")
HOOKS = (ROOT / "docs/run/hooks.md").read_text(encoding="utf-8")
# Fields of an app that are arrays of tables in the file, and those of the whole that are no keys.
ARRAYS = {"channels": "[[app.channel]]", "hooks": "[[app.hook]]"}
NO_KEYS = {"apps", "apis"}


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


def table(page: str, head: str) -> dict[str, str]:
    """Return the keys of a table, and the default of each as it stands there."""
    [rows] = re.findall(rf"^\| `{re.escape(head)}` \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    found: dict[str, str] = {}
    for row in rows.splitlines():
        _, keys, default, _ = row.split("|", 3)
        names, defaults = re.findall("`(.*?)`", keys), re.findall("`(.*?)`", default)
        found |= dict(zip(names, defaults or [default.strip()] * len(names), strict=True))
    return found


@pytest.mark.parametrize(
    ("page", "head", "kind"),
    [
        (PAGE, "[gateway]", GatewayConfig),
        (PAGE, "[[app]]", AppConfig),
        (PAGE, "limits", AppLimits),
        (PAGE, "[[app.channel]]", ChannelRule),
        (HOOKS, "[[app.hook]]", HookConfig),
    ],
)
def test_the_tables_have_the_keys_and_the_defaults_that_there_are(page: str, head: str, kind: type[Any]) -> None:
    config = read_config(app_file('[[app.channel]]\nmatch = "x"\n[[app.hook]]\nurl = "http://a"'))
    [app] = config.apps
    made = next(each for each in (config, app, app.limits, *app.channels, *app.hooks) if isinstance(each, kind))
    told = table(page, head)
    names = {field.name for field in dataclasses.fields(kind)} - NO_KEYS
    assert set(told) == {ARRAYS.get(name, name) if kind is AppConfig else name for name in names}
    for name, default in told.items():
        # `client_events = true` stands in the file of these tests.
        if default not in {"", "none"} and name != "client_events":
            value = tomllib.loads(f"x = {default}")["x"]
            assert expanded(value) == expanded(getattr(made, name)), name


def expanded(value: Any) -> Any:
    """Return a default as a file would say it: what is a set there is named by patterns."""
    if isinstance(value, frozenset):
        return set(value)
    if isinstance(value, (list, tuple)):
        events = {name for pattern in value for name in fnmatch.filter(HOOK_EVENTS, pattern)}
        return events or list(value)
    return value
