"""rawws.js as a package of npm: what is in it, its types, esbuild, and React and Vue built by vite, in Chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser

from rawws._version import __version__
from tests.browser.chromium import eventually
from tests.javascript.parts import ESBUILD, MODULES, address, publish, serving
from tests.processes import LOOPBACK, ROOT, Process, find_node, find_program, free_port

PACKAGE: Final = ROOT / "rawws" / "topics" / "js"
USE: Final = ROOT / "docs" / "use"
PAGE: Final = (USE / "bundlers.md").read_text(encoding="utf-8")
NAMED: Final = re.compile(r"^```\w+\n(?://|<!--|#) (\S+)(?: -->)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The server of that page is the program at the beginning of another one.
SERVER: Final = NAMED.findall((USE / "javascript.md").read_text(encoding="utf-8"))[0]
# A compiler would cache itself in the temporary folder.
UNCACHED: Final = {"NODE_DISABLE_COMPILE_CACHE": "1"}
# What the templates of vite have, as far as it matters here.
INDEX: Final = """<!doctype html><html lang=en><title>Chat</title><link rel=icon href=data:,>
<div id=root></div><script type=module src="/src/{}"></script>
"""
MAINS: Final = {
    "React": (
        "main.tsx",
        """import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import App from './App.tsx'

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
""",
    ),
    "Vue": (
        "main.ts",
        """import { createApp } from 'vue'
import App from './App.vue'

createApp(App).mount('#root')
""",
    ),
}
TYPES: Final = """{
  "compilerOptions": {
    "target": "ES2022", "lib": ["ES2022", "DOM", "DOM.Iterable"], "module": "ESNext", "moduleResolution": "bundler",
    "jsx": "react-jsx", "types": [], "verbatimModuleSyntax": true, "allowImportingTsExtensions": true, "noEmit": true,
    "skipLibCheck": true, "strict": true, "noUnusedLocals": true, "noUnusedParameters": true
  },
  "include": ["src"]
}
"""
PROGRAM: Final = """import { connect } from "rawws";
const hub = connect(process.argv[2]);
const told = hub.subscribe("bundled");
await told.ready;
await hub.publish("bundled", "through esbuild");
for await (const { data } of told) {
  console.log(data);
  break;
}
hub.close();
"""
TYPED: Final = """import { connect, type Subscription } from "rawws";
const chat: Subscription = connect("/topics").subscribe("chat");
chat.addEventListener("message", ({ data }) => console.log(data));
// @ts-expect-error there is no such option
connect("/topics", { reconnect: true });
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(free_port()) as process:
        yield process


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first line of the page makes."""
    folder = tmp_path_factory.mktemp("packed")
    [line] = re.findall(r"^npm pack (.*)$", PAGE, re.MULTILINE)
    find_program("npm", "apt-get install npm")
    # npm would leave its cache at home.
    options = f"--silent --offline --cache {folder / 'cache'}"
    script = f"npm pack {options} {line.replace('python', sys.executable)}"
    subprocess.run(["sh", "-c", script], cwd=folder, check=True, capture_output=True)
    return folder / f"rawws-{__version__}.tgz"


@pytest.fixture
def project(packed: Path, tmp_path: Path) -> Path:
    """A folder where the package and the libraries are installed."""
    modules = tmp_path / "node_modules"
    (modules / "rawws").mkdir(parents=True)
    subprocess.run(["tar", "-xzf", packed, "--strip-components=1", "-C", modules / "rawws"], check=True)
    for name in ("@types", "@vitejs", "react", "react-dom", "vite", "vue"):
        (modules / name).symlink_to(MODULES / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    return tmp_path


def run(project: Path, *command: str | Path) -> str:
    with Process(command, cwd=project, env=UNCACHED) as process:
        return process.result(120)


def test_it_is_of_the_same_version_and_holds_the_module_and_its_types(project: Path) -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == __version__
    assert f"rawws-{__version__}.tgz" in PAGE
    assert "dependencies" not in package
    held = project / "node_modules" / "rawws"
    assert sorted(path.name for path in held.iterdir()) == ["LICENSE", "package.json", "rawws.d.ts", "rawws.js"]
    assert (held / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (held / "rawws.js").read_text(encoding="utf-8") == (PACKAGE / "rawws.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("module", "resolution"), [("nodenext", "nodenext"), ("esnext", "bundler")])
def test_its_types_are_found(project: Path, module: str, resolution: str) -> None:
    (project / "typed.ts").write_text(TYPED)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", module, "--moduleResolution", resolution]
    assert run(project, find_node(), MODULES / "typescript" / "bin" / "tsc", *options, "typed.ts") == ""


def test_esbuild_bundles_it(project: Path, server: Process) -> None:
    (project / "program.js").write_text(PROGRAM)
    options = ["--bundle", "--minify", "--format=esm", "--platform=node", "--outfile=built.mjs", "--log-level=warning"]
    assert run(project, ESBUILD, "program.js", *options) == ""
    (project / "node_modules" / "rawws" / "rawws.js").unlink()
    assert run(project, find_node(), "built.mjs", address(server.port)) == "through esbuild\n"


def blocks_of(title: str) -> dict[str, str]:
    """Return the files below a heading of the page, by their names."""
    [section] = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(NAMED.findall(section))


@pytest.mark.parametrize("library", ["React", "Vue"])
def test_the_page_of_a_framework_has_types_is_built_by_vite_and_runs(
    browser: Browser, project: Path, library: str
) -> None:
    files, (main, program), port = blocks_of(library), MAINS[library], free_port()
    [(config_name, config)] = blocks_of("While you develop").items()
    if library == "Vue":
        config = f'import vue from "@vitejs/plugin-vue";\n{config}'
        config = re.sub("// plugins: .*", "plugins: [vue()],", config)
        # tsc knows nothing of files of Vue.
        files["src/files.d.ts"] = 'declare module "*.vue" { const App: object; export default App; }'
    files |= {
        config_name: config.replace("8765", str(port)),
        "index.html": INDEX.format(main),
        "tsconfig.json": TYPES,
        f"src/{main}": program,
        SERVER[0]: SERVER[1].replace("8765", str(port)),
    }
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    assert run(project, find_node(), MODULES / "typescript" / "bin" / "tsc", "-p", "tsconfig.json") == ""
    vite = MODULES / "vite" / "bin" / "vite.js"
    run(project, find_node(), vite, "build", "--logLevel", "warn")
    page_port = free_port()
    preview: list[str | Path] = [find_node(), vite, "preview", "--host", LOOPBACK, "--port", str(page_port)]
    with (
        Process([sys.executable, "-W", "error", SERVER[0]], cwd=project, listens=port),
        Process([*preview, "--strictPort"], cwd=project, listens=page_port, env=UNCACHED),
    ):
        publish(port, "public/chat", "before")
        context = browser.new_context()
        page, other = context.new_page(), context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        lines = "[...document.querySelectorAll('li')].map(({ textContent }) => textContent).join()"
        here = "document.querySelector('p')?.textContent"
        for each in (page, other):
            each.goto(f"http://{LOOPBACK}:{page_port}/")
            eventually(each, f"{lines} === 'before'")
        for each in (page, other):
            eventually(each, f"{here} === '2 here'")
        other.click("text=say hello")
        for each in (page, other):
            eventually(each, f"{lines} === 'before,Hello'")
        other.click("text=leave")
        eventually(page, f"{here} === '1 here'")
        other.click("text=leave")
        eventually(other, f"{lines} === 'before,Hello'")
        eventually(page, f"{here} === '2 here'")
        assert complaints == []
        context.close()
