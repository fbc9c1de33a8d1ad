"""Interop, our client: both twins play the scenario against five servers that others wrote, as real processes."""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import pytest

from tests.interop import scenario
from tests.interop.parts import SERVERS, Server, entries, python_command
from tests.interop.relay import Relay
from tests.interop.scenario import Connection, Report, digest
from tests.processes import LOOPBACK, Process

TIMEOUT: Final = 60.0
PROGRAM: Final = "client_rawws.py"

MESSAGES: Final = [digest(message) for message in scenario.MESSAGES]
FRAGMENTED: Final = [digest("".join(scenario.TEXT_FRAGMENTS)), digest(b"".join(scenario.BINARY_FRAGMENTS))]
COMPRESSIBLE: Final = digest(scenario.COMPRESSIBLE)


class Visit(NamedTuple):
    """One run of our client: what both sides say of it, and the bytes on the wire of the compressed echo."""

    server: Server
    report: Report
    connections: dict[str, Connection]
    to_server: int
    to_client: int


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=SERVERS)
def visit(request: pytest.FixtureRequest, twin: str) -> Visit:
    server_part = SERVERS[request.param]
    pure = {"RAWWS_PURE": "1" if twin == "interpreted" else ""}
    with Process(server_part.command(), listens=True) as server:
        assert server.port is not None
        with Relay(server.port) as relay:
            with Process([*python_command(PROGRAM), f"ws://{LOOPBACK}:{relay.port}"], env=pure) as client:
                output = client.result(TIMEOUT)
            lines = server.wait_for(lambda text: text.count("connection {") >= len(scenario.PATHS), "five connections")
            to_server, to_client = relay.to_server["/compressed"], relay.to_client["/compressed"]
    assert output.startswith(f"rawws, {twin}\n"), output
    (report,) = entries(output, "report")
    connections = [cast("Connection", entry) for entry in entries(lines, "connection")]
    assert sorted(connection["path"] for connection in connections) == sorted(scenario.PATHS)
    by_path = {connection["path"]: connection for connection in connections}
    return Visit(server_part, cast("Report", report), by_path, to_server, to_client)


def test_texts_and_binaries_of_all_lengths_come_back_unchanged(visit: Visit) -> None:
    assert visit.report["echoed"] == MESSAGES


def test_a_message_that_the_client_sends_in_fragments_arrives_whole(visit: Visit) -> None:
    assert visit.report["fragmented"] == FRAGMENTED
    assert visit.connections["/echo"]["received"] == [*MESSAGES, *FRAGMENTED]


def test_a_message_that_the_server_sends_in_fragments_arrives_whole(visit: Visit) -> None:
    assert visit.report["fragments"] == FRAGMENTED


def test_deflate_is_agreed_on_and_saves_bytes_both_ways(visit: Visit) -> None:
    assert visit.report["deflate"] is visit.server.deflates
    assert visit.report["compressed"] == COMPRESSIBLE
    size = len(scenario.COMPRESSIBLE)
    for sent in (visit.to_server, visit.to_client):
        assert (sent < size / 20) if visit.server.deflates else (sent > size)


def test_the_ping_of_the_server_is_answered(visit: Visit) -> None:
    assert visit.report["pinged"] == "pong"


def test_the_close_of_the_client_reaches_the_server_and_its_code_comes_back(visit: Visit) -> None:
    came = visit.connections["/echo"]["close"]
    assert came["code"] == scenario.CLOSE_BY_CLIENT["code"]
    assert came["reason"] == (scenario.CLOSE_BY_CLIENT["reason"] if visit.server.tells_reasons else "")
    answer = visit.server.answers_close_with or scenario.CLOSE_BY_CLIENT["code"]
    assert visit.report["closed_by_client"]["code"] == answer


def test_the_close_of_the_server_shows_its_code_and_reason_on_both_sides(visit: Visit) -> None:
    assert visit.report["closed_by_server"] == scenario.CLOSE_BY_SERVER
    if visit.server.tells_reasons:
        assert visit.connections["/close"]["close"]["code"] == scenario.CLOSE_BY_SERVER["code"]
