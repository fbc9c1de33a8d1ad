"""docs/run/gateway-service.md tells the truth: its file is right, its unit and its manifests name what there is."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any, Final

import httpx
import kubernetes_validate
import pusher
import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from rawws.cli import main as cli
from rawws.gateway.loading import read_config
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import start
from tests.processes import LOOPBACK, ROOT, eventually, free_port
from tests.test_kubernetes import VERSIONS

PAGE: Final = (ROOT / "docs/run/gateway-service.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


MANIFESTS: Final[dict[str, Any]] = {each["kind"]: each for each in yaml.safe_load_all(block("yaml"))}
POD: Final = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
CONTAINER: Final = POD["containers"][0]
SECRETS: Final[dict[str, str]] = MANIFESTS["Secret"]["stringData"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_the_manifests_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    config = read_config(block("toml"))
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert config.listen == (f"0.0.0.0:{ports['http']}",)
    assert config.admin == f"0.0.0.0:{ports['admin']}"
    assert MANIFESTS["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")]
    assert set(probes) == {"admin"}
    [secret] = [each["secretRef"]["name"] for each in CONTAINER["envFrom"]]
    assert secret == MANIFESTS["Secret"]["metadata"]["name"]
    assert {name for name in SECRETS if f'"env:{name}"' in block("toml")} == set(SECRETS)
    options = cli.parser().parse_args(CONTAINER["args"][1:])
    [mount] = CONTAINER["volumeMounts"]
    assert options.file.parent == Path(mount["mountPath"])
    assert options.drain_grace + options.drain_timeout + config.drain < POD["terminationGracePeriodSeconds"]
    # The cluster notices within the grace.
    assert CONTAINER["readinessProbe"]["periodSeconds"] < options.drain_grace


def test_the_unit_starts_what_there_is() -> None:
    [started] = re.findall(r"^ExecStart=(.*)$", block("ini"), re.MULTILINE)
    words = shlex.split(started)
    assert Path(words[0]).name == "rawws"
    options = cli.parser().parse_args(words[1:])
    [patience] = re.findall(r"^TimeoutStopSec=(\d+)$", block("ini"), re.MULTILINE)
    assert options.drain_grace + options.drain_timeout + 5 < int(patience)
    assert "-HUP" in block("ini")


def test_the_container_runs_and_its_probes_answer_until_its_clients_are_told_to_come_back(tmp_path: Path) -> None:
    engine = RedisEngine(tmp_path)
    try:
        ports = {"8765": str(free_port()), "9400": str(free_port())}
        text = block("toml").replace('"0.0.0.0:', f'"{LOOPBACK}:')
        for name, number in ports.items():
            text = text.replace(name, number)
        (tmp_path / "gateway.toml").write_text(text, encoding="utf-8")
        env = {**SECRETS, "REDIS_URL": engine.url}
        with start(tmp_path, "gateway", "gateway.toml", *CONTAINER["args"][3:], env=env) as process:

            def status(path: str, **fields: str) -> int:
                url = f"http://{LOOPBACK}:{ports['9400']}{path}"
                return httpx.get(url, headers=fields, trust_env=False, timeout=60).status_code

            for kind in ("startup", "liveness", "readiness"):
                assert status(CONTAINER[f"{kind}Probe"]["httpGet"]["path"]) == 200
            # It may serve before it has reached its backplane.
            eventually(lambda: status("/readyz?backplane") == 200)
            assert status("/metrics") == 401
            assert status("/metrics", Authorization=f"Bearer {env['ADMIN_KEY']}") == 200
            key, at = "278d425bdf160c739803", int(ports["8765"])
            library = pusher.Pusher("1", key, env["APP_SECRET"], ssl=False, host=LOOPBACK, port=at)
            with connect(f"ws://{LOOPBACK}:{at}/app/{key}?protocol=7", origin=Origin("https://example.com")) as ws:
                ws.recv(timeout=60)
                process.send_signal(signal.SIGTERM)
                # While the cluster notices, servers and clients are served as before.
                eventually(lambda: status(CONTAINER["readinessProbe"]["httpGet"]["path"]) == 503)
                assert status(CONTAINER["livenessProbe"]["httpGet"]["path"]) == 200
                assert library.trigger("room", "news", "x") == {}
                with pytest.raises(ConnectionClosed, match="4200"):
                    ws.recv(timeout=POD["terminationGracePeriodSeconds"])
            process.result(60)
    finally:
        engine.end()
