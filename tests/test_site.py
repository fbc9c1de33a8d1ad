"""The site is built without a warning, and every link in it leads to a place that there is."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser.chromium import browsing
from tests.processes import ROOT


class Links(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors = {""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in {"href", "src"}:
                self.targets.add(value or "")


def read(path: Path) -> Links:
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "--quiet", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stderr}\n(needs `pip install --group docs`)"
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: read(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    broken = []
    for path, links in pages.items():
        for target in links.targets:
            scheme, host, file, _, anchor = urlsplit(target)
            if scheme or host:
                continue
            aim = (path.parent / unquote(file)).resolve() if file else path
            if not aim.exists() or (aim.suffix == ".html" and unquote(anchor) not in pages[aim].anchors):
                broken.append((str(path.relative_to(site)), target))
    assert broken == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_screen(site: Path, width: int) -> None:
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    with browsing() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        wide = []
        for path in sorted({*site.rglob("*.html")} - {*(site / "source").rglob("*.html")}):
            page.goto(path.as_uri())
            if page.evaluate(overflow) > 0:
                wide.append(str(path.relative_to(site)))
    assert wide == []


def test_every_page_of_the_folder_is_in_the_navigation(site: Path) -> None:
    found = read(site / "README.html").targets
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs").with_suffix(".html"))
        assert name in found or name == "README.html", name


def test_a_rule_of_the_specification_leads_to_its_line(site: Path) -> None:
    [target] = {
        target
        for target in read(site / "understand" / "specification" / "rfc6455.html").targets
        if target.startswith("../../source/rawws/protocol/closing.py.html#") and "parse_close" in line(site, target)
    }
    assert "def parse_close" in line(site, target)


def line(site: Path, target: str) -> str:
    file, _, anchor = target.partition("#L-")
    source = (ROOT / file.removeprefix("../../source/").removesuffix(".html")).read_text(encoding="utf-8")
    assert f'id="L-{anchor}"' in (site / "understand" / "specification" / file).read_text(encoding="utf-8")
    return source.splitlines()[int(anchor) - 1]
