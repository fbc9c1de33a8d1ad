"""The page about hooks tells the truth: its file is right, and its program takes what a gateway sends."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from rawws.gateway.loading import HOOK_EVENTS, read_config
from rawws.gateway.webhooks import pusher_webhook
from tests.gateway.receivers import occupied
from tests.processes import ROOT

PAGE: Final = (ROOT / "docs/run/hooks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_table_has_the_events_that_there_are() -> None:
    [rows] = re.findall(r"^\| event \| when \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    told = [name for row in rows.splitlines() for name in re.findall("`(.*?)`", row.split("|")[1])]
    assert sorted(told) == sorted(HOOK_EVENTS)


def test_the_program_takes_what_the_file_has_sent_and_nothing_else() -> None:
    app = read_config(block("toml")).apps[0]
    assert app.hooks[0].events == {"channel_occupied", "channel_vacated", "member_added", "member_removed"}
    program: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(block("python"), "hooks.md", "exec"), program)
    request = pusher_webhook([occupied("presence-a")], app.keys[0], "evt_1", 1, time.time())
    client = program["app"].test_client()
    assert client.post("/hooks", data=request.body, headers=dict(request.headers)).status_code == 204
    assert client.post("/hooks", data=request.body + b" ", headers=dict(request.headers)).status_code == 401
    assert program["seen"] == [{"name": "channel_occupied", "channel": "presence-a"}]
