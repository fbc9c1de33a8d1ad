"""What is shown of a gateway is read off its metrics; and what may be done to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawws.admin import inspector
from rawws.admin.gateway import GATEWAY_ROWS, gateway_of, labels_of
from rawws.admin.sources import LocalSource, SourceBusyError
from rawws.metrics import Samples, series
from rawws.topics import Hub
from tests.admin.looks import fetch, looked_at, read


@pytest.mark.parametrize("text", ["3", "", 'a"b', "a\\b", "a\nb", 'x\\"}\\n,y="'])
def test_labels_are_read_as_they_were_written(text: str) -> None:
    assert labels_of(series("_total", app=text, face="own")) == {"app": text, "face": "own"}
    assert labels_of("_total") == {}


def test_rows_have_what_each_app_hook_and_backend_counted_the_largest_first() -> None:
    app, other = {"app": "3", "face": "pusher"}, {"app": "4", "face": "own"}
    hook, url = {"app": "3", "url": "http://h/"}, {"url": "http://b/"}
    samples: Samples = {
        "rawws_gateway_instances": {"": 2},
        "rawws_gateway_connections": {series(**app): 1, series(**other): 5},
        "rawws_gateway_connections_refused": {
            series("_total", **app, code="4001"): 2,
            series("_total", **app, code="4004"): 3,
        },
        "rawws_gateway_hook_waiting": {series(**hook): 7},
        "rawws_gateway_hook_events": {
            series("_total", **hook, outcome=outcome): count
            for outcome, count in (("sent", 10), ("dropped", 1), ("lost", 2))
        },
        "rawws_gateway_breaker": {series(**url): 2},
        "rawws_gateway_calls": {
            series("_total", **url, outcome=outcome): count
            for outcome, count in (("2xx", 4), ("5xx", 2), ("timeout", 1))
        },
    }
    found = gateway_of(samples)
    assert found is not None
    assert found["instances"] == 2
    nothing = {"opened": 0, "received": 0, "sent": 0, "requests": 0}
    assert found["apps"] == [
        {**other, **nothing, "connections": 5, "refused": 0},
        {**app, **nothing, "connections": 1, "refused": 5},
    ]
    assert found["hooks"] == [{**hook, "waiting": 7, "age": 0, "sent": 10, "lost": 3, "retries": 0, "off": 0}]
    assert found["backends"] == [{**url, "breaker": 2, "failed": 3, "calls": 7, "under_way": 0}]


def test_no_more_rows_are_shown_than_a_page_has_room_for() -> None:
    lines = {series(app=str(number), face="own"): float(number) for number in range(3 * GATEWAY_ROWS)}
    found = gateway_of({"rawws_gateway_instances": {"": 1}, "rawws_gateway_connections": lines})
    assert found is not None
    assert [row["connections"] for row in found["apps"]] == list(range(3 * GATEWAY_ROWS))[: -GATEWAY_ROWS - 1 : -1]


async def test_a_server_that_is_no_gateway_has_none() -> None:
    async with looked_at(Hub()) as (_, admin):
        assert (await read(admin, "/v1/status"))["gateway"] is None


async def retry(admin: Any, said: Any, kind: str = "application/json", *fields: str) -> tuple[int, str]:
    """Ask for a hook to be tried."""
    body = json.dumps(said).encode()
    answer = await fetch(admin, "/v1/retry", f"Content-Type: {kind}", *fields, method="POST", body=body)
    return answer.status, answer.body.decode()


async def test_a_hook_is_tried_where_a_gateway_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with looked_at(Hub()) as (_, admin):
        hook = {"app": "3", "url": "http://h/"}
        status, why = gone = await retry(admin, hook)
        assert (status, json.loads(why)) == (404, {"error": "the app '3' has no hook 'http://h/'"})
        tried: list[tuple[str, str]] = []

        def act(app: str, url: str) -> bool:
            tried.append((app, url))
            return len(tried) > 1

        monkeypatch.setattr(inspector, "_actions", {})
        inspector.add_action("retry_hook", act)
        assert await retry(admin, hook) == gone
        status, said = await retry(admin, hook)
        assert (status, json.loads(said)) == (200, {"retried": "http://h/"})
        assert tried == [("3", "http://h/")] * 2
        # As with a kick, no form of a page can ask for it, and no page of another site.
        assert (await retry(admin, hook, "text/plain"))[0] == 415
        assert (await retry(admin, hook, "application/json", "Origin: https://evil.example"))[0] == 403
        for wrong in ({"app": "3"}, {**hook, "more": 1}, {"app": 3, "url": ""}):
            assert (await retry(admin, wrong))[0] == 400


async def test_a_process_that_is_busy_may_have_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(self: LocalSource, _: Any) -> Any:
        raise SourceBusyError

    monkeypatch.setattr(LocalSource, "act", busy)
    async with looked_at(Hub()) as (_, admin):
        status, why = await retry(admin, {"app": "3", "url": "http://h/"})
        assert (status, "when it does" in why) == (503, True)
