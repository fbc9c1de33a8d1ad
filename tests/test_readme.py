"""The README and the docs tell the truth: their programs run, their commands exist, their tables match the code."""

from __future__ import annotations

import argparse
import inspect
import itertools
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

import fuzz.__main__ as fuzz
import rawws
from fuzz import sanitised
from fuzz.target import names as targets
from rawws import testing
from rawws.backplanes.redis_scripts import function_name
from rawws.cli import main as cli
from tests.processes import LOOPBACK, ROOT, Process, free_port
from tests.specification.modules import PAGE, with_modules
from tests.test_layers import MODULES

TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
# Their addresses are made from the numbers of sections.
SPECIFICATIONS = ("https://www.rfc-editor.org/rfc/rfc", "https://html.spec.whatwg.org/multipage/")
PORT = "8765"  # what every example listens on


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def name(self) -> str:
        """The file that a program says it is, in its first line."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else f"line_{self.line}.py"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


BLOCKS = [block for page in PAGES for block in blocks(page)]
# Those of sse.md are no servers of rawws: tests/sse/test_documentation.py runs them. Those of http.md are no echo:
# tests/server/test_http_documentation.py. The how-tos have tests/test_howtos.py, and some a test of their own.
ELSEWHERE = {
    "api-gateway.md",
    "frameworks.md",
    "gateway-api.md",
    "gateway.md",
    "haproxy.md",
    "hooks.md",
    "http.md",
    "http2.md",
    "javascript.md",
    "kafka.md",
    "kubernetes.md",
    "nats.md",
    "own-face.md",
    "postgresql.md",
    "push.md",
    "redis.md",
    "sse.md",
    "testing.md",
} | {f"{name}.md" for name in ("access", "admin", "api", "embedding", "reading", "scaling", "socketio", "tutorial")}
PROGRAMS = [block for block in BLOCKS if block.language == "python" and block.page.name not in ELSEWHERE]
CLIENTS = [block for block in PROGRAMS if re.search(r"rawws\.(sync\.)?(connect|events|HubClient)\(", block.text)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]


def start(block: Block, folder: Path) -> Process:
    """Run a program that serves, on a port that is free here."""
    port = free_port()
    (folder / block.name).write_text(block.text.replace(PORT, str(port)), encoding="utf-8")
    return Process([sys.executable, "-W", "error", block.name], cwd=folder, listens=port)


def program(page: str, name: str) -> Block:
    return next(block for block in PROGRAMS if block.page == ROOT / page and block.name == name)


def test_every_block_says_what_it_is() -> None:
    known = {
        "python",
        "sh",
        "bash",
        "js",
        "ts",
        "tsx",
        "vue",
        "ini",
        "dockerfile",
        "postgresql",
        "toml",
        "yaml",
        "text",
    }
    known |= {"nginx", "haproxy", "apache", "caddyfile", "vcl"}
    assert {block.language for block in BLOCKS} <= known
    assert len(PROGRAMS) >= 5
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("block", CLIENTS, ids=str)
def test_a_program_with_its_own_client_prints_and_ends(block: Block, tmp_path: Path) -> None:
    (tmp_path / block.name).write_text(block.text.replace(PORT, str(free_port())), encoding="utf-8")
    with Process([sys.executable, "-W", "error", block.name], cwd=tmp_path) as process:
        assert process.result(60) == "Hello\n"


@pytest.mark.parametrize("block", [block for block in PROGRAMS if block not in CLIENTS], ids=str)
def test_a_program_serves_what_it_says(block: Block, tmp_path: Path) -> None:
    with start(block, tmp_path) as process:
        with connect(f"ws://{LOOPBACK}:{process.port}/") as ws:
            ws.send("Grüße")
            assert ws.recv(timeout=60) == "Grüße"
            ws.send(b"\x00\xff")
            assert ws.recv(timeout=60) == b"\x00\xff"
        if "/healthz" in block.text:
            with urlopen(f"http://{LOOPBACK}:{process.port}/healthz", timeout=60) as answer:
                assert (answer.status, answer.read()) == (200, b"ok\n")
        os.kill(process.pid, signal.SIGINT)
        assert "Traceback" not in process.result(60)


def test_the_twenty_lines_are_a_chat_of_twenty_lines(tmp_path: Path) -> None:
    chat = program("README.md", "chat.py")
    assert len(chat.text.strip().splitlines()) <= 26  # with the blank ones
    with (
        start(chat, tmp_path) as process,
        connect(f"ws://{LOOPBACK}:{process.port}") as ada,
        connect(f"ws://{LOOPBACK}:{process.port}") as grace,
    ):
        for person, text in ((ada, "Do you hear me?"), (grace, "Loud and clear")):
            person.send(text)
            assert [ada.recv(timeout=60), grace.recv(timeout=60)] == [text, text]


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_a_command_exists_and_takes_its_arguments(block: Block) -> None:
    names = {program.name for program in BLOCKS if program.page == block.page and program.language == "python"}
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    assert [line for line in lines if line]
    for line in filter(None, lines):
        command, *arguments = itertools.dropwhile(re.compile("RAWWS_[A-Z_]+=").match, line)
        match Path(command).name, arguments:
            case "make", [target, *words]:
                assert all(word.startswith("ARGS=") for word in words)
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ("python", ["-m", "rawws", *options]) | ("rawws", options):
                parse(options, names)
            case "python", ["-m", "fuzz" | "fuzz.sanitised" as module, *options]:
                if module == "fuzz.sanitised":
                    _, options = sanitised.parser().parse_known_args(options)
                assert {"all", *targets()} >= set(fuzz.parser().parse_args(options).target)
            case "python", ["-m", "pip", "install", "--group", group]:
                assert group in tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
            case "python", ["-m", "pytest", *paths]:
                if block.page.name == "CONTRIBUTING.md":  # tests/test_contributing.py runs it
                    continue
                assert [path for path in paths if not (ROOT / path).exists()] == []
            case "python", [name, *_]:
                assert name in names or (ROOT / name).exists()
            case "python3", ["-m", "venv", folder]:
                assert f". {folder}/bin/activate" in block.text
            case "", [script]:  # `.`
                assert f"python3 -m venv {script.removesuffix('/bin/activate')}\n" in block.text
            case "pip", ["install", what]:
                extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
                found = re.fullmatch(r"(?:\.|rawws)\[(\w+)\]", what)
                assert what in {".", "pycrdt"} or (found is not None and found[1] in extras)
            case "uvicorn", [target, "--ws", name]:
                assert f"{target.partition(':')[0]}.py" in names
                assert callable(pkgutil.resolve_name(name))
            case "varnishd", _:  # tests/proxies runs it
                continue
            case "nats-server", ["-c", name]:  # tests/backplanes/test_nats_documentation.py runs it
                assert f"# {name}\n" in block.page.read_text(encoding="utf-8")
            case "redis-cli", ["EVAL", script, "0", "rawws", *_]:  # tests/backplanes/test_outside.py runs it
                assert script == "$(redis-cli HGET rawws:hub publish)"
            case "redis-cli", ["-c", "FCALL", name, "1", *_]:  # tests/backplanes/test_outside_cluster.py runs it
                assert name == function_name("rawws")
            case "openssl", ["req", *_]:
                with tempfile.TemporaryDirectory() as folder:
                    subprocess.run([command, *arguments], cwd=folder, check=True, capture_output=True)
                    assert {each.name for each in Path(folder).iterdir()} == {"key.pem", "certificate.pem"}
            case "npm", ["pack" | "install", *_]:
                # tests/javascript/test_package.py runs it, and tests/examples/parts.py
                assert block.page.name in {"bundlers.md", "collaboration.md"}
            case ("echo", [*_]) | ("npx", [*_]):  # tests/examples/parts.py runs it
                assert block.page.name == "collaboration.md"
            case "curl", [url, *_]:
                assert url.startswith(f"http://127.0.0.1:{PORT}/")
            case _:
                pytest.fail(f"{block}: nothing is known of {command} {arguments}")


def parse(options: list[str], names: set[str]) -> None:
    """Check that a `rawws` command parses, and that what it serves stands on the same page."""
    if options == ["--version"]:
        return
    found = cli.parser().parse_args(options)
    if "target" in found:
        module, name = found.target
        assert f"{module}.py" in names
        assert name == module  # the page's program defines it by the name of its file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if target.startswith(SPECIFICATIONS):
            continue
        assert not target.startswith(("http:", "https:")), f"{target}: a link elsewhere cannot be checked here"
        aim = page.parent / file if file else page
        assert aim.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_options_page_lists_every_option_with_its_default() -> None:
    text = (ROOT / "docs" / "use" / "options.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    parameters = inspect.signature(rawws.serve).parameters
    assert listed == {name: repr(parameters[name].default) for name in parameters if name != "handler"}
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", text))
    [commands] = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    known = {flag for action in commands.choices["serve"]._actions for flag in action.option_strings}
    assert flags == known - {"-h", "--help", "--compression"}


def test_the_design_page_lists_every_module_with_its_docstring() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_modules(page), "run `make docs`"
    assert all(
        f"| `{path.relative_to(ROOT)}` |" in page
        for path in MODULES.values()
        if path.name != "__init__.py" and path.is_relative_to(ROOT / "rawws")
    )


def test_the_quickstart_quotes_the_error_of_a_recv_that_was_not_awaited() -> None:
    async def scenario() -> str:
        async with testing.pair() as (client, _):
            with pytest.raises(TypeError) as caught:
                client.send(client.recv())  # type: ignore[arg-type]
        return str(caught.value)

    page = (ROOT / "docs" / "begin" / "quickstart.md").read_text(encoding="utf-8")
    assert f"| `TypeError`: {testing.run(scenario())} |" in page
