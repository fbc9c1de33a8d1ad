"""`import rawws` brings what a small server needs, and nothing that only some need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

# Each took a measurable part of the import, or is a room of its own that few enter.
LAZY = frozenset({
    *("argparse", "curses", "email.utils", "http.client", "http.server", "mimetypes", "multiprocessing", "readline"),
    *("rawws.backplanes", "rawws.cli", "rawws.demo", "rawws.integrations", "rawws.sync", "rawws.testing"),
    *("rawws.client.hub_links", "rawws.client.topics", "rawws.topics"),
    *("python_socks", "urllib.request", "uvloop", "xml"),
})  # fmt: skip


def imported(statement: str, **environment: str) -> set[str]:
    """Return the names of the modules that a statement imports into a new interpreter."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    # -S: an editable installation has a finder that imports modules of its own.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("pure", ["", "1"])
def test_what_few_need_is_imported_when_they_do(pure: str) -> None:
    environment = {"RAWWS_PURE": pure} if pure else {}
    found = imported("import rawws", **environment)
    assert "rawws.server.server" in found
    assert found & LAZY == set()


def test_the_law_would_see_an_import_too_many() -> None:
    assert imported("import rawws, urllib.request") & LAZY >= {"http.client", "urllib.request"}


def test_what_was_left_out_is_there_when_it_is_asked_for() -> None:
    assert "rawws.topics" in imported("import rawws; rawws.Hub")
    assert "rawws.topics" not in imported("import rawws; rawws.HubClient")
    assert "rawws.testing" in imported("from rawws import testing")


def test_the_encoder_alone_imports_nothing_of_rawws() -> None:
    assert not {name for name in imported("import rawws_sse") if name.partition(".")[0] == "rawws"}
