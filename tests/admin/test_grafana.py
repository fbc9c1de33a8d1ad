"""The dashboard of Grafana and the alerts of Prometheus: every metric that they name is one of a real server's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.sync.client import connect

import rawws.admin
from rawws.gateway.figures import GATEWAY_METRICS
from rawws.metrics import METRICS
from tests.admin.test_workers import admin_of, dial, served
from tests.cli.commands import port
from tests.gateway.instances import instances
from tests.gateway.push_running import push_file
from tests.gateway.running import APP, KEY, SECRET, app_file
from tests.integrations.push_doubles import PushDouble
from tests.processes import LOOPBACK, eventually, find_program

FOLDER: Final = Path(rawws.admin.__file__).parent / "grafana"
ALERTS: Final = FOLDER / "alerts.yml"
DASHBOARD: Final = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
# Of those that there are, these say nothing that is not in another one.
UNSHOWN: Final = {
    "rawws_http2_connections",
    "rawws_http2_streams",
    "rawws_sockets_accepted_total",
    "rawws_draining",
    "rawws_hub_held_publications",
    "rawws_hub_gaps_total",
    *(
        f"{name}_{part}"
        for name, metric in (METRICS | GATEWAY_METRICS).items()
        for part in ("sum", "count")
        if metric.kind == "histogram"
    ),
}

# What `promtool test rules` is told: a loop that is late from the first minute on, a backplane that goes away, and the
# same of a server where all is well.
SERIES: Final = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'rawws_loop_lag_seconds_bucket{instance="a",job="rawws",le="0.25"}', values: "0+0x20"}
      - {series: 'rawws_loop_lag_seconds_bucket{instance="a",job="rawws",le="0.5"}', values: "0+60x20"}
      - {series: 'rawws_loop_lag_seconds_bucket{instance="a",job="rawws",le="+Inf"}', values: "0+60x20"}
      - {series: 'rawws_loop_lag_seconds_bucket{instance="b",job="rawws",le="0.25"}', values: "0+60x20"}
      - {series: 'rawws_loop_lag_seconds_bucket{instance="b",job="rawws",le="0.5"}', values: "0+60x20"}
      - {series: 'rawws_loop_lag_seconds_bucket{instance="b",job="rawws",le="+Inf"}', values: "0+60x20"}
      - {series: 'rawws_hub_degraded{instance="a",job="rawws"}', values: "0x9 1x10"}
      - {series: 'rawws_hub_degraded{instance="b",job="rawws"}', values: "0x20"}
      - {series: 'rawws_gateway_hook_events_total{instance="a",url="u",outcome="lost"}', values: "0x9 3x10"}
      - {series: 'rawws_gateway_hook_events_total{instance="a",url="u",outcome="sent"}', values: "0+60x20"}
      - {series: 'rawws_gateway_breaker{instance="a",url="u"}', values: "0x9 2x10"}
    alert_rule_test:
      - {eval_time: 3m, alertname: RawwsLoopLag, exp_alerts: []}
      - eval_time: 12m
        alertname: RawwsLoopLag
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, job: rawws}
            exp_annotations:
              summary: the event loop of a is late by 475ms
              description: "A handler blocks it, or the worker has too much to do: all connections of it wait so long."
      - {eval_time: 9m, alertname: RawwsBackplaneIsAway, exp_alerts: []}
      - eval_time: 12m
        alertname: RawwsBackplaneIsAway
        exp_alerts:
          - exp_labels: {severity: critical, instance: a, job: rawws}
            exp_annotations:
              summary: a does not reach its backplane
              description: Publications of other servers do not arrive, and own ones wait.
      - {eval_time: 9m, alertname: RawwsHooksAreLost, exp_alerts: []}
      - eval_time: 12m
        alertname: RawwsHooksAreLost
        exp_alerts:
          - exp_labels: {severity: critical, instance: a, url: u, outcome: lost}
            exp_annotations: {summary: "u was not told of 3 events: lost"}
      - eval_time: 12m
        alertname: RawwsBackendIsLeftAlone
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, url: u}
            exp_annotations:
              summary: the gateway a does not call u, which failed
              description: "Clients that connect get a 503, messages an error, and events wait for the hook."
"""


def promtool(*arguments: str | Path, stdin: str = "", cwd: Path | None = None) -> str:
    command = [find_program("promtool", "apt-get install prometheus"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    with (
        served(tmp_path_factory.mktemp("scraped"), "--admin", f"{LOOPBACK}:0", workers=2) as process,
        dial(process) as ws,
    ):
        ws.send("x")
        ws.recv(timeout=60)
        return httpx.get(f"{admin_of(process)}/metrics", timeout=60).text


@pytest.fixture(scope="module")
def gateway_scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a gateway answers whose hook was told that a client came."""
    hook = f'[[app.hook]]\nurl = "http://{LOOPBACK}:9/hook?secret=1"\nevents = ["connection_opened"]'
    text = app_file(hook, head=f'[gateway]\nadmin = "{LOOPBACK}:0"\nbackplane = "workers"')
    with instances(tmp_path_factory.mktemp("gateway"), text, 1, "--workers", "2") as [process]:
        with connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7") as ws:
            ws.recv(timeout=60)
            said = ""

            def called() -> bool:
                nonlocal said
                said = httpx.get(f"{admin_of(process)}/metrics", timeout=60).text
                return 'rawws_gateway_calls_total{url="http://127.0.0.1:9/hook",outcome="refused"}' in said

            eventually(called)
            return said


@pytest.fixture(scope="module")
def push_scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a gateway answers that looked for the devices of a user who has none."""
    folder = tmp_path_factory.mktemp("push")
    text = push_file(folder, PushDouble(), head=f'[gateway]\nadmin = "{LOOPBACK}:0"')
    with instances(folder, text) as [process]:
        asked = httpx.post(
            f"http://{LOOPBACK}:{port(process)}/v1/apps/{APP}/push",
            json={"users": ["ann"], "notification": {"title": "Hello"}, "after": 0},
            headers={"Authorization": f"Bearer {SECRET}"},
            timeout=60,
        )
        assert asked.is_success, asked.text
        said = ""

        def looked_for() -> bool:
            nonlocal said
            said = httpx.get(f"{admin_of(process)}/metrics", timeout=60).text
            return 'rawws_gateway_push_users_total{app="3",outcome="without_device"} 1' in said

        eventually(looked_for)
        return said


def names(expression: str) -> set[str]:
    return set(re.findall(r"\brawws_\w+", re.sub(r'"[^"]*"', "", expression)))


def expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]
            assert variable["query"]["query"] == variable["definition"]


def scraped_names(scrape: str) -> set[str]:
    """Return the names of the series that there are or may be: some labels are not there before something happened."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", scrape, re.MULTILINE):
        found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


def test_what_a_server_and_a_gateway_answer_is_to_the_taste_of_prometheus(
    scrape: str, gateway_scrape: str, push_scrape: str
) -> None:
    for said in (scrape, gateway_scrape, push_scrape):
        assert promtool("check", "metrics", stdin=said) == ""


def test_every_metric_of_the_dashboard_is_there_and_all_are_shown(
    scrape: str, gateway_scrape: str, push_scrape: str
) -> None:
    used = set().union(*map(names, expressions()))
    found = scraped_names(scrape) | scraped_names(gateway_scrape) | scraped_names(push_scrape)
    # None is missing because nothing of its kind happened.
    assert {f"{name}{'_total' * (metric.kind == 'counter')}" for name, metric in GATEWAY_METRICS.items()} <= {
        name.removesuffix("_bucket") for name in found
    }
    assert used - found == set()
    assert found - used == UNSHOWN
    assert {name for name in scraped_names(scrape) if name.startswith("rawws_gateway")} == set()


def test_every_metric_of_the_alerts_is_there(scrape: str, gateway_scrape: str) -> None:
    used = names(ALERTS.read_text(encoding="utf-8"))
    assert used - scraped_names(scrape) - scraped_names(gateway_scrape) == set()
    assert len(used) >= 8


def test_the_alerts_are_rules_and_fire_when_they_should(tmp_path: Path) -> None:
    said = promtool("check", "rules", ALERTS)
    assert "SUCCESS: 11 rules found" in said
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "series.yml").write_text(SERIES, encoding="utf-8")
    assert "SUCCESS" in promtool("test", "rules", "series.yml", cwd=tmp_path)


def test_every_expression_of_the_dashboard_is_one_to_prometheus(tmp_path: Path) -> None:
    plain = [
        expression.replace("$__rate_interval", "1m")
        for panel in PANELS
        for expression in [target["expr"] for target in panel.get("targets", ())]
    ]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(plain)]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(plain)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_panels_do_not_overlap_and_have_what_grafana_needs() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken
        taken |= cells
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(references) == len(set(references))
        assert panel["title"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel.get("targets", ())} == {"${datasource}"}


def test_a_server_gives_both_files_to_whoever_asks(tmp_path: Path) -> None:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0", workers=1) as process:
        url = admin_of(process)
        assert httpx.get(f"{url}/grafana/dashboard.json", timeout=60).json() == DASHBOARD
        assert httpx.get(f"{url}/grafana/alerts.yml", timeout=60).text == ALERTS.read_text(encoding="utf-8")
