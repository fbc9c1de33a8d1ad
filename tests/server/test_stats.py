"""What a server counts and logs of its connections; that a client can forge nothing in it; probes and Prometheus."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import socket
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import rawws
import rawws.metrics
from rawws import _twins
from rawws.http.serving import ServerFigures
from rawws.net.histogram import Histogram, TimeFigures
from rawws.net.logs import LONGEST, printable
from rawws.protocol.connection import Ping
from rawws.protocol.http11 import parse_request
from tests.processes import ROOT
from tests.server.answers import ask, get, on
from tests.server.peers import Logged, Peer, connected, eventually, request, serve


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def lines(caplog: pytest.LogCaptureFixture, name: str = "rawws.server") -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == name and record.levelno == logging.INFO]


# -- counters


async def test_a_server_counts_its_connections_and_their_bytes() -> None:
    async with serve(echo) as server:
        assert server.stats() == ServerFigures(0, 0, 0, 0, {}, {}, {}, 0, 0, 0, 0, 0, 0, False)
        silent = await Peer.reach(server.sockets[0].getsockname())
        async with connected(server) as peer:
            await peer.send("hello")
            await peer.message()
            now = server.stats()
            assert (now.sockets, now.accepted, now.connections, now.opened) == (2, 2, 1, 1)
            assert now.bytes_received == len(request()) + 6 + 5
            assert now.bytes_sent > 2 + 5
            await peer.start_close(4000)
            await peer.finish()
        silent.close()
        await eventually(lambda: server.stats().sockets == 0)
        after = server.stats()
        assert (after.accepted, after.connections, after.opened, after.closes) == (2, 0, 1, {4000: 1})
        # The Close frames of both sides: a mask makes that of a client longer.
        assert after.bytes_received == now.bytes_received + 6 + 2
        assert after.bytes_sent == now.bytes_sent + 2 + 2


@pytest.mark.parametrize("size", [100, 70_000, 3_000_000])
async def test_bytes_are_counted_whichever_way_they_leave(size: int) -> None:
    """At once, in part, or by the transport."""
    async with serve(echo, max_size=None) as server, connected(server, receive_buffer=4096) as peer:
        before = server.stats().bytes_sent
        message = b"x" * size
        [ws] = server.connections
        sent = asyncio.ensure_future(ws.send(message))
        assert await peer.message() == message
        await sent
        assert server.stats().bytes_sent - before == size + (2 if size < 126 else 10 if size > 65535 else 4)


@pytest.mark.parametrize(
    ("first", "code"),
    [(lambda ws: ws.close(1012, "x"), 1012), (lambda ws: ws.fail(1009, "x"), 1009), (lambda ws: ws.abort(), 1006)],
)
async def test_closes_are_counted_by_the_code_that_came_first(first: Any, code: int) -> None:
    async with serve(echo) as server, connected(server) as peer:
        [ws] = server.connections
        first(ws)
        await peer.finish()
        peer.close()
        await eventually(lambda: not server.connections)
        assert server.stats().closes == {code: 1}
        assert server.stats().aborted == (code == 1006)


async def test_refused_handshakes_are_counted_by_their_status() -> None:
    async with serve(echo) as server:
        for fields in (["Origin: https://evil.example"], ["Origin: https://evil.example"], ["Upgrade: x"]):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(request(*fields))
            await peer.answer()
            peer.close()
        stats = server.stats()
        assert stats.refusals == {403: 2, 426: 1}
        assert stats.responses == stats.refusals
        assert stats.opened == 0


async def test_a_response_that_cannot_be_sent_is_a_refusal(logged: Logged) -> None:
    def answer(ws: rawws.WebSocket, request: rawws.Request) -> rawws.Response:
        return rawws.Response(200, "x", {"Content-Length": "2"})

    async with serve(echo, process_request=answer) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(request())
        assert (await peer.answer())[0].status == 500
        peer.close()
        assert server.stats().refusals == server.stats().responses == {500: 1}
    logged.take("opening handshake failed", rawws.LocalProtocolError)


async def test_a_slow_consumer_is_counted() -> None:
    async with serve(rawws.Handler(), hard_limit=100_000) as server, connected(server, receive_buffer=4096) as peer:
        [ws] = server.connections
        with pytest.raises(rawws.ConnectionClosed):
            while True:
                ws.send(b"x" * 50_000)
        assert server.stats().slow == 1
        peer.close()
        await eventually(lambda: server.stats().closes == {1013: 1})


async def test_a_slow_event_stream_is_counted() -> None:
    stream = rawws.EventStream()
    async with serve(rawws.Routes([rawws.Route("/", lambda _: stream)]), hard_limit=100_000) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), receive_buffer=4096)
        await peer.write(get("/"))
        await peer.response()
        while not stream.closed:
            stream.send("x" * 50_000)
        assert server.stats().slow == 1
        peer.close()


async def test_counters_of_callbacks_are_those_of_the_server() -> None:
    async with serve(rawws.Handler()) as server, connected(server) as peer:
        await peer.start_close()
        await peer.finish()
        await eventually(lambda: not server.connections)
        assert server.stats().closes == {1000: 1}


# -- lines


async def test_a_connection_has_one_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.server")
    async with serve(echo) as server, connected(server) as peer:
        host, port = peer.sock.getsockname()
        [ws] = server.connections
        name = str(ws.id)
        await peer.send("hi")
        await peer.message()
        await peer.start_close(1000, "done")
        await peer.finish()
        await eventually(lambda: not server.connections)
        stats = server.stats()
    [record] = lines(caplog)
    facts: Any = record
    assert facts.remote == f"{host}:{port}"
    assert (facts.path, facts.close_code, facts.close_reason, facts.closed_by) == ("/", 1000, "done", "peer")
    assert (facts.aborted, facts.connection_id) == (False, name)
    assert (facts.bytes_received, facts.bytes_sent) == (stats.bytes_received, stats.bytes_sent)
    text = record.getMessage()
    assert text.startswith(f"{host}:{port} / closed by peer with 1000 (done) after 0.")
    assert text.endswith(f" s, {stats.bytes_received} bytes received, {stats.bytes_sent} sent")


async def test_a_refusal_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.server")
    async with serve(echo) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(request("Origin: https://evil.example", line="GET /chat?room=1 HTTP/1.1"))
        await peer.answer()
        peer.close()
    [record] = lines(caplog)
    facts: Any = record
    assert (facts.path, facts.status) == ("/chat?room=1", 403)
    assert "https://evil.example" in record.getMessage()


async def test_a_server_that_logs_no_info_makes_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rawws.server")
    async with serve(echo) as server, connected(server) as peer:
        [ws] = server.connections
        await peer.start_close()
        await peer.finish()
        await eventually(lambda: not server.connections)
        assert ws.remote is None
    assert lines(caplog) == []


async def test_the_access_log_has_a_line_for_each_response(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.access")
    stream = rawws.EventStream()
    routes = rawws.Routes(
        [rawws.Route("/page", lambda _: "Hello\n"), rawws.Route("/events", lambda _: stream)],
    )
    async with serve(routes, access_log=True) as server:
        for target in ("/page?x=1", "/nothing", "/events"):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(get(target))
            await peer.response()
            peer.close()
        broken = await Peer.reach(server.sockets[0].getsockname())
        await broken.write(b"\x16\x03\x01\r\n\r\n")
        await broken.read_to_end()
        broken.close()
        stream.close()
    texts = [record.getMessage().partition(" ")[2] for record in lines(caplog, "rawws.access")]
    assert texts == [
        '"GET /page?x=1 HTTP/1.1" 200 6',
        '"GET /nothing HTTP/1.1" 404 30',
        '"GET /events HTTP/1.1" 200 -',
        '"\\x16\\x03\\x01" 400 ' + texts[-1].rpartition(" ")[2],
    ]


async def test_there_is_no_access_log_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.access")
    async with serve(rawws.Routes([rawws.Route("/", lambda _: "Hello\n")])) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/"))
        await peer.response()
        peer.close()
        assert server.stats().responses == {200: 1}
    assert lines(caplog, "rawws.access") == []


# -- what a client can write

FORGED = "x\r\n2026-01-01 INFO forged\x1b[2J\u2028\u202e\x85\x00"


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_no_text_of_a_client_begins_a_line_or_moves_the_cursor(
    level: int, caplog: pytest.LogCaptureFixture, logged: Logged
) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        logging.Formatter(
            "%(message)s %(remote)s %(path)s %(close_reason)s %(reason)s %(request)s",
            defaults=dict.fromkeys(("remote", "path", "close_reason", "reason", "request"), "-"),
        )
    )
    logger = logging.getLogger("rawws")
    logger.addHandler(handler)
    caplog.set_level(level, "rawws")
    routes = rawws.Routes([rawws.Route("/{rest:path}", echo, websocket=True)])
    hostile = FORGED.encode().replace(b"\r\n", b"\x0b").decode("latin-1")
    heads = [
        request(f"Origin: {hostile}"),
        request(f"Sec-WebSocket-Version: {hostile}"),
        request(f"Sec-WebSocket-Extensions: {hostile}"),
        request(f"X-Forwarded-For: {hostile}"),
        request(f"Host: {hostile}"),
        request(line=f"GET /{hostile} HTTP/1.1"),
        request(line=f"{hostile} / HTTP/1.1"),
        request(line="GET /%0d%0aforged%1b HTTP/1.1"),
        hostile.encode("latin-1") + b"\r\n\r\n",
    ]
    try:
        async with serve(routes, access_log=True, trusted_proxies=["127.0.0.1"]) as server:
            for head in heads:
                peer = await Peer.reach(server.sockets[0].getsockname())
                await peer.write(head)
                await peer.read()
                peer.close()
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.shake_hands(line="GET /x HTTP/1.1")
            await peer.start_close(4000, FORGED)
            await peer.finish()
            peer.close()
            await eventually(lambda: not server.settings.connections)
            assert server.stats().closes[4000] == 1
            assert server.stats().accepted == len(heads) + 1
    finally:
        logger.removeHandler(handler)
    written = out.getvalue()
    assert written.count("\n") >= len(heads)
    assert len(written.splitlines()) == written.count("\n")
    assert [char for char in written if not char.isprintable() and char != "\n"] == []
    assert "\\x1b[2J" in written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Grüße 字", "plain Grüße 字"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[31m\x7f\x9b", "\\x1b[31m\\x7f\\x9b"),
        ("\u2028\u2029\u202e\u200b\ufeff", "\\u2028\\u2029\\u202e\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * LONGEST + "..."),
    ],
)
def test_what_a_client_wrote_is_shown_in_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text) == shown


async def test_a_unix_socket_has_lines_too(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    caplog.set_level(logging.INFO, "rawws.server")
    path = str(tmp_path / "s")
    async with rawws.serve(echo, path=path) as server:
        peer = await Peer.reach(path)
        await peer.shake_hands()
        await peer.start_close()
        await peer.finish()
        peer.close()
        await eventually(lambda: not server.connections)
    [record] = lines(caplog)
    assert record.getMessage().startswith("unix / closed by peer with 1000 after ")


async def test_an_ipv6_address_stands_in_brackets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.server")
    sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    async with rawws.serve(echo, sock=sock) as server, connected(server) as peer:
        await peer.start_close()
        await peer.finish()
        await eventually(lambda: not server.connections)
    assert lines(caplog)[0].getMessage().startswith("[::1]:")


def test_the_page_on_operations_names_every_figure_and_every_attribute_of_a_line() -> None:
    text = (ROOT / "docs" / "run" / "operations.md").read_text(encoding="utf-8")
    figures = text.partition("## Figures")[2].partition("## ")[0]
    table = "".join(line for line in figures.splitlines() if line.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(ServerFigures._fields)
    attributes = set(re.findall(r'^ +"(\w+)": ', (ROOT / "rawws" / "server" / "stats.py").read_text(), re.MULTILINE))
    logs = text.partition("## Logs")[2].partition("## ")[0]
    assert attributes <= set(re.findall(r"`(\w+)`", logs))


# -- Prometheus


async def scrape(server: rawws.Server) -> dict[str, float]:
    """Return the samples that Prometheus' own parser finds, by name and labels."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    await peer.write(get("/metrics", "Connection: close"))
    response, text = await peer.answer()
    peer.close()
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_prometheus_reads_all_that_server_and_hub_count() -> None:
    hub = rawws.Hub()

    async def listener(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "news")
        await ws.wait_closed()

    endpoint = rawws.metrics.endpoint(hub, registry=CollectorRegistry())
    routes = rawws.Routes([rawws.Route("/", listener, websocket=True), rawws.Route("/metrics", endpoint)])
    async with serve(routes) as server, connected(server) as one:
        async with connected(server) as two:
            await eventually(lambda: hub.stats().subscribers == 2)
            hub.publish("news", "hello")
            await two.start_close(4001)
            await two.finish()
        await eventually(lambda: hub.stats().subscribers == 1)
        found = await scrape(server)
        stats = server.stats()
        assert await one.message() == "hello"
    expected = {
        "rawws_connections": 1,
        "rawws_connections_opened_total": 2,
        "rawws_connections_closed_total{code=4001}": 1,
        "rawws_sockets": 2,
        "rawws_sockets_accepted_total": 3,
        "rawws_draining": 0,
        "rawws_hub_topics": 1,
        "rawws_hub_subscribers": 1,
        "rawws_hub_published_total": 1,
        "rawws_hub_deliveries_total{outcome=delivered}": 2,
        "rawws_hub_deliveries_total{outcome=dropped}": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 0 < found["rawws_sent_bytes_total"] <= stats.bytes_sent


async def test_every_field_of_the_counts_is_a_metric() -> None:
    named = [*rawws.metrics.GAUGES, *rawws.metrics.COUNTERS, *rawws.metrics.TIMES]
    assert sorted(named) == sorted(ServerFigures._fields)
    hub = [*rawws.metrics.HUB_GAUGES, *rawws.metrics.HUB_COUNTERS, *rawws.metrics.OUTCOMES]
    assert sorted(hub) == sorted(rawws.Hub().stats()._fields)


async def test_streams_and_polls_are_counted_as_long_as_they_are_open() -> None:
    stream, poll = rawws.EventStream(), rawws.LongPoll()
    async with serve(rawws.Routes([on_("/stream", stream), on_("/poll", poll)])) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(2)]
        for peer, path in zip(peers, ("/stream", "/poll"), strict=True):
            await peer.write(get(path))
        await eventually(lambda: (server.stats().streams, server.stats().polls) == (1, 1))
        assert server.stats().sockets == 2
        assert server.stats().connections == 0
        stream.close()
        poll.respond("x")
        await eventually(lambda: (server.stats().streams, server.stats().polls) == (0, 0))
        for peer in peers:
            peer.close()


def on_(path: str, answer: object) -> rawws.Route:
    return rawws.Route(path, lambda _: answer)


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("handler", [rawws.Handler(), echo])
async def test_round_trips_and_the_lag_of_the_loop_are_histograms(handler: Any) -> None:
    def scraped(server: rawws.Server) -> dict[str, float]:
        samples = rawws.metrics.samples_of(server)
        return samples["rawws_ping_round_trip_seconds"] | {"lag": samples["rawws_loop_lag_seconds"]["_count"]}

    # Short times make the sweeps frequent.
    async with serve(handler, ping_timeout=0.2, ping_interval=None) as server, connected(server) as peer:
        [ws] = server.connections
        answer = asyncio.ensure_future(ws.ping(b"one"))
        # The core of the peer answers it.
        assert await peer.event() == Ping(b"one")
        await peer.flush()
        latency = float(await answer)
        assert ws.latency == latency == server.stats().round_trips.last == server.stats().round_trips.total
        await eventually(lambda: sum(server.stats().lag.counts) > 1)
        lines = scraped(server)
    assert lines["_count"] == lines['_bucket{le="+Inf"}'] == lines['_bucket{le="10.0"}'] == 1
    assert lines["_sum"] == latency
    assert lines["lag"] > 1
    assert server.stats().lag.total >= server.stats().lag.last >= 0


def test_a_histogram_counts_each_time_once() -> None:
    times = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 10.0, 11.0):
        times.observe(seconds)
    assert times.figures() == TimeFigures((2, 1, *[0] * 10, 1, 1), 21.0021, 11.0)
    lines = dict(rawws.metrics.histogram(times.figures()))
    bounds = ("0.001", "0.0025", "5.0", "10.0", "+Inf")
    assert [lines[f'_bucket{{le="{bound}"}}'] for bound in bounds] == [2, 3, 3, 4, 5]


def test_the_sums_of_processes_have_the_highest_of_what_all_know() -> None:
    def samples(connections: float, topics: float, status: int) -> rawws.metrics.Samples:
        responses = {f'_total{{status="{status}"}}': 1.0}
        return {"rawws_connections": {"": connections}, "rawws_hub_topics": {"": topics}, "rawws_responses": responses}

    whole = rawws.metrics.sum_samples([samples(2, 3, 200), samples(1, 1, 404)])
    assert whole == {
        "rawws_connections": {"": 3.0},
        "rawws_hub_topics": {"": 3.0},
        "rawws_responses": {'_total{status="200"}': 1, '_total{status="404"}': 1},
    }
    assert list(rawws.metrics.lasting_samples(whole)) == ["rawws_responses"]


async def test_what_another_server_counts_is_not_known() -> None:
    answer = rawws.metrics.endpoint()(rawws.HttpRequest(parse_request(get("/metrics")), {}, None, "http"))
    assert (answer.status, answer.body) == (503, b"another server got the request, and its figures are not known\n")


async def test_without_a_hub_there_are_the_server_and_the_process() -> None:
    async with serve(rawws.Routes([rawws.Route("/metrics", rawws.metrics.endpoint())])) as server:
        found = await scrape(server)
    assert found["process_open_fds"] > 0
    [build] = [name for name in found if name.startswith("rawws_build_info")]
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    assert f"version={rawws.__version__},twin={_twins.running()}," in build
    assert build.endswith(f",loop={loop}}}")
    assert not [name for name in found if name.startswith("rawws_hub")]


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import rawws.metrics; rawws.metrics.endpoint()"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    message = "metrics need prometheus-client, which is not installed: pip install 'rawws[metrics]'"
    assert ran.stderr.strip().endswith(f"ImportError: {message}")


async def test_a_quote_of_a_client_does_not_end_the_request_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.access")
    async with serve(on("/", lambda _: "x"), access_log=True) as server:
        await ask(server, get('/?"'))
    [line] = [record.getMessage() for record in caplog.records if record.name == "rawws.access"]
    assert line.endswith(' "GET /?\\x22 HTTP/1.1" 200 1')
