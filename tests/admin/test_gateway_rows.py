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


async def post_json(admin: Any, path: str, said: Any, kind: str = "application/json", *fields: str) -> tuple[int, str]:
    """Ask for something to be done to a hook."""
    body = json.dumps(said).encode()
    answer = await fetch(admin, path, f"Content-Type: {kind}", *fields, method="POST", body=body)
    return answer.status, answer.body.decode()


async def retry(admin: Any, said: Any, *fields: str) -> tuple[int, str]:
    """Ask for a hook to be tried."""
    return await post_json(admin, "/v1/retry", said, *fields)


async def test_a_hook_is_tried_where_a_gateway_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with looked_at(Hub()) as (_, admin):
        hook = {"app": "3", "url": "http://h/"}
        status, why = gone = await retry(admin, hook)
        assert (status, json.loads(why)) == (404, {"error": "the app '3' has no hook 'http://h/'"})
        tried: list[tuple[str, str]] = []

        def act(app: str, url: str) -> dict[str, Any] | None:
            tried.append((app, url))
            return {} if len(tried) > 1 else None

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
        for path in ("/v1/retry", "/v1/test"):
            status, why = await post_json(admin, path, {"app": "3", "url": "http://h/"})
            assert (status, "when it does" in why) == (503, True)


async def test_deliveries_of_a_hook_are_listed_and_a_test_is_answered_with_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with looked_at(Hub()) as (_, admin):
        at, hook = "/v1/deliveries?app=3&url=http%3A%2F%2Fh%2F", {"app": "3", "url": "http://h/"}
        gone = {"error": "the app '3' has no hook 'http://h/'"}
        missing = await fetch(admin, at)
        assert (missing.status, json.loads(missing.body)) == (404, gone)
        status, why = await post_json(admin, "/v1/test", hook)
        assert (status, json.loads(why)) == (404, gone)
        sent: list[dict[str, Any]] = []

        async def test(app: str, url: str) -> dict[str, Any]:
            assert (app, url) == ("3", "http://h/")
            sent.append({"time": float(len(sent))})
            return {"deliveries": sent[-1:] if len(sent) < 3 else []}

        monkeypatch.setattr(inspector, "_actions", {})
        inspector.add_action("test_hook", test)
        inspector.add_action("hook_deliveries", lambda app, url: {"deliveries": sent} if url == hook["url"] else None)
        for number in range(2):
            status, said = await post_json(admin, "/v1/test", hook)
            assert (status, json.loads(said)) == (200, {"tested": "http://h/", "deliveries": [{"time": number}]})
        assert (await post_json(admin, "/v1/test", hook))[0] == 409
        assert await read(admin, at) == {**hook, "busy": 0, "deliveries": [{"time": n} for n in (2, 1, 0)]}
        # As with a kick, no form of a page can ask for a test, and no page of another site.
        assert (await post_json(admin, "/v1/test", hook, "text/plain"))[0] == 415
        assert (await post_json(admin, "/v1/test", hook, "application/json", "Origin: https://evil.example"))[0] == 403
        assert (await post_json(admin, "/v1/test", {"app": "3"}))[0] == 400
        for wrong in ("", "?app=3", "?url=x", "?app=3&app=4&url=x"):
            assert (await fetch(admin, f"/v1/deliveries{wrong}")).status == 400
        assert len(sent) == 3
