"""The page about push tells the truth of the gateway, too: its file is right, and its requests do what it says."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import httpx2
import pytest

from rawws.gateway.config import PushConfig
from rawws.gateway.loading import read_config
from rawws.integrations.push import new_vapid_key
from tests.gateway.running import SECRET, gateway
from tests.integrations.push_doubles import account_file, apns_key, push_double
from tests.integrations.test_push_page import blocks, table
from tests.server.peers import eventually


async def test_the_file_is_right_and_the_requests_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_SECRET", SECRET)
    monkeypatch.setenv("VAPID_KEY", new_vapid_key()[0])
    (tmp_path / "AuthKey.p8").write_text(apns_key())
    async with push_double(plain=True) as (double, _):
        account_file(tmp_path, double).rename(tmp_path / "service-account.json")
        [text] = blocks("toml")
        text = text.replace("/run/secrets", str(tmp_path))
        [app] = read_config(text).apps
        assert app.push is not None
        assert app.push.apns is not None
        assert app.push.fcm is not None
        # Without a Redis, and with services that are here.
        text = text.replace('backplane = "redis://127.0.0.1:6379/0"', 'backplane = "none"').replace(
            "after = 5", "after = 0"
        )
        text = text.replace('service-account.json"', f'service-account.json"\n  url = "{double.url}"')
        asked = [shlex.split(line) for line in blocks("sh")[1].splitlines()]
        assert {line[0] for line in asked} == {"curl"}
        answers = []
        async with gateway(text) as running, httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            for _, url, *options in asked:
                given = dict(zip(options[::2], options[1::2], strict=True))
                headers = dict([given["-H"].replace("SECRET", SECRET).split(": ")])
                method = given.get("-X", "POST" if "-d" in given else "GET")
                here = url.replace("127.0.0.1:8765", f"127.0.0.1:{running.port}")
                answer = await client.request(method, here, content=given.get("-d", ""), headers=headers)
                answers.append(answer.json())
                if url.endswith("/push"):
                    await eventually(lambda: double.pushed)
            assert [each.get("deleted", each.get("users")) for each in answers] == [None, None, 1, True]
            assert answers[1] == {"devices": [answers[0]]}
        assert double.pushed[0].payload["notification"] == {"title": "New message"}


def test_the_table_has_the_keys_that_there_are() -> None:
    assert table("`[app.push]`") == [field.name for field in dataclasses.fields(PushConfig)]
