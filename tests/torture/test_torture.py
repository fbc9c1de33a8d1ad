"""The torture for some seconds: the engine lives, so nobody may be told of a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backplanes.engines import SERVERS
from tests.server.peers import run

from .torture import torture

SECONDS = 15.0


@pytest.mark.parametrize("server", SERVERS)
def test_every_client_has_the_log_of_the_publisher_whichever_servers_die(server: str, tmp_path: Path) -> None:
    engine = SERVERS[server](tmp_path)
    try:
        found = run(torture(engine, SECONDS), 2 * SECONDS + 240)
    finally:
        engine.end()
    assert found.faults() == []
    assert found.server_kills > SECONDS / 5
    assert all(count > SECONDS for count in found.resumed.values())
    # Nobody loses its place to a server that dies: the engine lives on, and keeps all.
    assert found.declared == 0
