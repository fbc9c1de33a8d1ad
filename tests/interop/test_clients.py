"""Interop, our server: six clients that others wrote, as real processes, play the scenario against both twins.

What a client received stands in its report, what the server received in the lines that it prints; both are compared
with the scenario, message by message.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import pytest

from tests.interop import scenario
from tests.interop.parts import CLIENTS, Client, entries, python_command, running
from tests.interop.relay import Relay
from tests.interop.scenario import Connection, Report, digest
from tests.processes import LOOPBACK, Process

TIMEOUT: Final = 60.0

MESSAGES: Final = [digest(message) for message in scenario.MESSAGES]
FRAGMENTED: Final = [digest("".join(scenario.TEXT_FRAGMENTS)), digest(b"".join(scenario.BINARY_FRAGMENTS))]
COMPRESSIBLE: Final = digest(scenario.COMPRESSIBLE)


class Visit(NamedTuple):
    """One run of a client: what both sides say of it, and the bytes on the wire of the compressed echo."""

    client: Client
    report: Report
    connections: dict[str, Connection]
    to_server: int
    to_client: int


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CLIENTS)
def visit(request: pytest.FixtureRequest, twin: str) -> Visit:
    client = CLIENTS[request.param]
    pure = {"RAWWS_PURE": "1" if twin == "interpreted" else ""}
    with Process(python_command("server.py"), listens=True, env=pure) as server:
        assert server.output.startswith(f"rawws, {twin}\n"), server.output
        assert server.port is not None
        with Relay(server.port) as relay, running(client, f"{LOOPBACK}:{relay.port}") as process:
            report = await_report(client, process, server)
            output = server.wait_for(lambda text: text.count("connection {") >= len(scenario.PATHS), "five connections")
            to_server, to_client = relay.to_server["/compressed"], relay.to_client["/compressed"]
    assert "Traceback" not in server.output, server.output
    connections = [cast("Connection", entry) for entry in entries(output, "connection")]
    assert sorted(connection["path"] for connection in connections) == sorted(scenario.PATHS)
    return Visit(client, report, {connection["path"]: connection for connection in connections}, to_server, to_client)


def await_report(client: Client, process: Process, server: Process) -> Report:
    """Return what the client prints at its end, or what the browser sends to the server."""
    if client.is_browser:
        output = server.wait_for(lambda text: "report {" in text, "the report of the browser", TIMEOUT)
    else:
        output = process.result(TIMEOUT)
    (report,) = entries(output, "report")
    assert "error" not in report, report
    return cast("Report", report)


def test_texts_and_binaries_of_all_lengths_come_back_unchanged(visit: Visit) -> None:
    assert visit.report["echoed"] == MESSAGES
    assert visit.connections["/echo"]["received"][: len(MESSAGES)] == MESSAGES


def test_a_message_that_the_client_sends_in_fragments_arrives_whole(visit: Visit) -> None:
    expected = FRAGMENTED if visit.client.fragments else None
    assert visit.report["fragmented"] == expected
    assert visit.connections["/echo"]["received"][len(MESSAGES) :] == (expected or [])


def test_a_message_that_the_server_sends_in_fragments_arrives_whole(visit: Visit) -> None:
    assert visit.report["fragments"] == FRAGMENTED


def test_deflate_is_agreed_on_and_saves_bytes_both_ways(visit: Visit) -> None:
    assert visit.report["deflate"] is visit.client.inflates
    assert visit.report["compressed"] == COMPRESSIBLE
    assert visit.connections["/compressed"]["received"] == [COMPRESSIBLE]
    size = len(scenario.COMPRESSIBLE)
    for sent, compresses in ((visit.to_server, visit.client.deflates), (visit.to_client, visit.client.inflates)):
        assert (sent < size / 20) if compresses else (sent > size)


def test_the_pong_of_the_server_bears_the_payload_of_the_ping(visit: Visit) -> None:
    assert visit.report["pong"] == (scenario.PING if visit.client.pings else None)


def test_the_ping_of_the_server_is_answered(visit: Visit) -> None:
    assert visit.report["pinged"] == "pong"


def test_the_close_of_the_client_reaches_the_server_and_its_code_comes_back(visit: Visit) -> None:
    assert visit.connections["/echo"]["close"] == scenario.CLOSE_BY_CLIENT
    # RFC 6455 5.5.1: "the endpoint typically echos the status code it received"; of a reason it says nothing.
    assert visit.report["closed_by_client"]["code"] == scenario.CLOSE_BY_CLIENT["code"]


def test_the_close_of_the_server_shows_its_code_and_reason_on_both_sides(visit: Visit) -> None:
    assert visit.report["closed_by_server"] == scenario.CLOSE_BY_SERVER
    answer = visit.client.answers_close_with or scenario.CLOSE_BY_SERVER["code"]
    assert visit.connections["/close"]["close"]["code"] == answer
