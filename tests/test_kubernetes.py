"""docs/run/kubernetes.md tells the truth: its manifests are valid and name what there is, and its container runs."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import kubernetes_validate
import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from rawws.cli import main as cli
from rawws.cli.environment import options_in
from tests.backplanes.engines import RedisEngine
from tests.processes import LOOPBACK, ROOT, Process, eventually, free_port

PAGE: Final = (ROOT / "docs" / "run" / "kubernetes.md").read_text(encoding="utf-8")
# The oldest and the newest that anybody supports.
VERSIONS: Final = ["1.33", "1.37"]


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


MANIFESTS: Final[dict[str, Any]] = {each["kind"]: each for each in yaml.safe_load_all(block("yaml"))}
POD: Final = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
CONTAINER: Final = POD["containers"][0]
VARIABLES: Final = {each["name"]: each["value"] for each in CONTAINER["env"] if "value" in each}


def command() -> list[str]:
    [line] = re.findall(r"^CMD (\[.*\])$", block("dockerfile"), re.MULTILINE)
    words: list[str] = json.loads(line)
    return words


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_a_mistake_in_a_manifest_would_be_noticed() -> None:
    wrong = {**MANIFESTS["Service"], "spec": {"selecter": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_manifests_belong_together() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    [port] = CONTAINER["ports"]
    assert MANIFESTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")]
    assert set(probes) == {port["name"]}
    assert VARIABLES["RAWWS_PORT"] == str(port["containerPort"])
    annotations = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert f"EXPOSE {port['containerPort']}" in block("dockerfile")
    [secret] = [each["valueFrom"]["secretKeyRef"] for each in CONTAINER["env"] if "valueFrom" in each]
    assert MANIFESTS["Secret"]["metadata"]["name"] == secret["name"]
    assert secret["key"] in MANIFESTS["Secret"]["stringData"]
    [path] = MANIFESTS["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    service = path["backend"]["service"]
    assert service == {"name": MANIFESTS["Service"]["metadata"]["name"], "port": {"name": "http"}}
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": MANIFESTS["Deployment"]["apiVersion"],
        "kind": "Deployment",
        "name": MANIFESTS["Deployment"]["metadata"]["name"],
    }


def test_the_container_is_nobody_and_may_do_nothing() -> None:
    user = POD["securityContext"]["runAsUser"]
    assert f"USER {user}" in block("dockerfile")
    deploying = (ROOT / "docs" / "run" / "deploying.md").read_text(encoding="utf-8")
    assert f"USER {user}" in deploying
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_variables_are_options_and_the_grace_is_longer_than_the_drain() -> None:
    words = command()
    assert words[:4] == ["python", "-m", "rawws", "serve"]
    ours = {name: value for name, value in VARIABLES.items() if name.startswith("RAWWS_")}
    assert len(ours) >= 7
    found = options_in(ours, words)
    assert set(found) == set(ours)
    options = cli.parser().parse_args(["serve", *found.values(), *words[4:]])
    assert options.drain_grace + options.drain_timeout < POD["terminationGracePeriodSeconds"]
    # The cluster notices within the grace.
    assert CONTAINER["readinessProbe"]["periodSeconds"] < options.drain_grace


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisEngine]:
    engine = RedisEngine(tmp_path)
    yield engine
    engine.end()


def test_the_container_runs_and_its_probes_answer_until_it_drains(tmp_path: Path, redis: RedisEngine) -> None:
    (tmp_path / "chat.py").write_text(block("python"), encoding="utf-8")
    port = free_port()
    words = [sys.executable, "-W", "error", *command()[1:]]
    env = {**VARIABLES, "RAWWS_PORT": str(port), "REDIS_URL": redis.url, "PYTHONDONTWRITEBYTECODE": "1"}
    host = f"{LOOPBACK}:{port}"
    origin = VARIABLES["RAWWS_ORIGINS"]
    before = {path.name for path in tmp_path.iterdir()}
    with Process(words, cwd=tmp_path, env=env, listens=port) as process:

        def status(path: str) -> int:
            return httpx.get(f"http://{host}{path}", trust_env=False, timeout=60).status_code

        for kind in ("startup", "liveness", "readiness"):
            assert status(CONTAINER[f"{kind}Probe"]["httpGet"]["path"]) == 200
        assert status("/metrics") == 200
        [path] = MANIFESTS["Ingress"]["spec"]["rules"][0]["http"]["paths"]
        url, protocols = f"ws://{host}{path['path']}", [Subprotocol("rawws.v1")]
        with connect(url, subprotocols=protocols, origin=origin) as ws:
            ws.send(json.dumps({"id": 1, "subscribe": "public/news"}))
            assert "cursor" in json.loads(ws.recv(timeout=60))
            process.send_signal(signal.SIGTERM)
            # While the cluster notices, clients are served as before.
            eventually(lambda: status(CONTAINER["readinessProbe"]["httpGet"]["path"]) == 503)
            assert status(CONTAINER["livenessProbe"]["httpGet"]["path"]) == 200
            ws.send(json.dumps({"publish": "public/news", "data": "Hello"}))
            assert json.loads(ws.recv(timeout=60))["data"] == "Hello"
            with pytest.raises(ConnectionClosed, match="1001"):
                ws.recv(timeout=POD["terminationGracePeriodSeconds"])
        said, *logged = [json.loads(line) for line in process.result(60).splitlines()]
        assert said["message"].startswith("listening on ")
        assert all(line["message"] for line in logged)
    assert {path.name for path in tmp_path.iterdir()} == before
