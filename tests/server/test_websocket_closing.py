"""How connections end: the closing handshake from both sides, its deadline, and what is no closing handshake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rawws
from tests.server.peers import Logged, Peer, connected, eventually, held, serve

# A masked text frame that says "hi", and one with a payload of 1,000 bytes.
HI = b"\x81\x82\x00\x00\x00\x00hi"
UNMASKED = b"\x81\x00"
LONG = b"\x82\xfe\x03\xe8\x00\x00\x00\x00" + bytes(1000)


async def drain(ws: rawws.WebSocket) -> None:
    """A handler that reads to the end."""
    async for _ in ws:
        pass


async def end_of(ws: rawws.WebSocket) -> rawws.ConnectionClosed:
    """Return what `recv` raises at the end."""
    with pytest.raises(rawws.ConnectionClosed) as closed:
        while True:
            await ws.recv()
    return closed.value


async def is_closed(ws: rawws.WebSocket) -> None:
    await eventually(lambda: ws.ready_state is rawws.State.CLOSED)


# -- started by the server


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (1011, "ü" * 61), (3000, ""), (4999, "x" * 123), (1013, "later")]
)
async def test_close_sends_code_and_reason_and_waits_for_the_answer(code: int, reason: str) -> None:
    async with held() as (ws, peer):
        closing = ws.close(code, reason)
        assert ws.ready_state is rawws.State.CLOSING
        task = asyncio.ensure_future(closing)
        assert await peer.closed() == (code, reason)
        assert not task.done()
        assert ws.close_code is None
        await peer.start_close(code, "answer")
        # RFC 6455 7.1.1: the server closes TCP first.
        assert await peer.read() == b""
        await task
        assert ws.ready_state.name == "CLOSED"
        assert [ws.close_code, ws.close_reason] == [code, "answer"]


async def test_close_without_await_acts() -> None:
    async with held() as (ws, peer):
        ws.close(4000, "now")
        assert await peer.finish() == (4000, "now")


async def test_close_twice_sends_one_close() -> None:
    async with held() as (ws, peer):
        first, second = ws.close(4000, "first"), ws.close(4001, "second")
        data = await peer.read()
        peer.connection.receive(data)
        assert peer.connection.next_event() == rawws.Close(4000, "first")
        assert data[1] + 2 == len(data)
        peer.connection.settle()
        await peer.flush()
        await asyncio.gather(first, second)
        await ws.close()
        await ws.close(4002)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(999, ""), (1004, ""), (1005, "why"), (1006, ""), (1015, ""), (2999, ""), (5000, ""), (-1, ""), (1000, "x" * 124)],
)
async def test_a_close_that_may_not_be_sent_is_refused_and_the_connection_goes_on(code: int, reason: str) -> None:
    async with held() as (ws, peer):
        with pytest.raises(rawws.LocalProtocolError, match=r"close code is|close reason is|reason"):
            ws.close(code, reason)
        assert ws.ready_state is rawws.State.OPEN
        await ws.send("next")
        assert await peer.message() == "next"


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (None, ""), (1000, None), (1000, b"why"), (1000.5, "")])
async def test_a_close_code_or_reason_of_the_wrong_type_is_refused(code: Any, reason: Any) -> None:
    async with held() as (ws, peer):
        with pytest.raises((TypeError, rawws.LocalProtocolError)):
            ws.close(code, reason)
        assert ws.ready_state is rawws.State.OPEN
        await ws.send("next")
        assert await peer.message() == "next"


async def test_messages_that_come_after_close_are_dropped_and_those_before_are_received() -> None:
    async with held() as (ws, peer):
        await peer.send("before")
        await peer.heard_by(ws)
        ws.close()
        await peer.send("after")
        assert await peer.finish() == (1000, "")
        assert await ws.recv() == "before"
        assert isinstance(await end_of(ws), rawws.ConnectionClosedOK)


async def test_what_was_sent_before_close_goes_before_it() -> None:
    async with held(slow=True) as (ws, peer):
        for number in range(30):
            ws.send(f"{number}".encode().ljust(20_000))
        ws.close(4000)
        for number in range(30):
            assert (await peer.event()) == f"{number}".encode().ljust(20_000)
        assert await peer.finish() == (4000, "")


async def test_close_over_a_full_queue_reaches_the_peers_answer() -> None:
    """What is behind the queue is dropped, or the answer to the Close would never be read."""
    async with held() as (ws, peer):
        flood = asyncio.create_task(peer.write(LONG * 3000))
        await eventually(lambda: ws.full)
        closing = asyncio.ensure_future(ws.close())
        await flood
        assert await peer.finish() == (1000, "")
        await closing
        assert (await end_of(ws)).rcvd == rawws.Close(1000, "")


async def test_a_peer_that_never_answers_is_aborted_after_close_timeout() -> None:
    async with held(close_timeout=0.1) as (ws, peer):
        started = time.monotonic()
        await ws.close(1000)
        # A loop counts milliseconds.
        assert time.monotonic() - started > 0.095
        assert await peer.closed() == (1000, "")
        assert await peer.read() == b""
        assert (ws.close_code, ws.close_reason) == (1006, "")
        assert isinstance(await end_of(ws), rawws.ConnectionClosedError)


@contextmanager
def sends_on(peer: Peer, data: bytes = HI) -> Iterator[None]:
    """Have a peer go on sending whatever it gets."""

    async def flood() -> None:
        try:
            while True:
                await peer.write(data)
                await asyncio.sleep(0.005)
        except OSError:
            pass

    task = asyncio.create_task(flood())
    try:
        yield
    finally:
        task.cancel()


async def test_a_peer_that_goes_on_sending_does_not_extend_the_close_timeout() -> None:
    async with held(close_timeout=0.2) as (ws, peer):
        with sends_on(peer):
            await ws.close()
        assert ws.close_code == 1006


async def test_a_peer_that_goes_on_pinging_does_not_extend_the_close_timeout() -> None:
    async with held(close_timeout=0.2, ping_timeout=0.1, ping_interval=0.05) as (ws, peer):
        with sends_on(peer, b"\x89\x80\x00\x00\x00\x00"):
            await ws.close()
        assert ws.close_code == 1006


async def test_a_second_close_does_not_extend_the_close_timeout() -> None:
    async with held(close_timeout=0.2) as (ws, _):
        task = asyncio.ensure_future(ws.close())
        while not task.done():
            ws.close()
            await asyncio.sleep(0.02)


async def test_a_peer_that_does_not_read_is_aborted_after_close_timeout() -> None:
    async with held(slow=True, close_timeout=0.1) as (ws, _):
        ws.send(bytes(500_000))
        await ws.close()
        assert ws.close_code == 1006


async def test_a_peer_that_closes_and_does_not_read_is_aborted_after_close_timeout() -> None:
    async with held(slow=True, close_timeout=0.1, ping_interval=None) as (ws, peer):
        ws.send(bytes(500_000))
        await asyncio.sleep(0)
        await peer.start_close()
        await ws.wait_closed()
        assert ws.close_code == 1000


async def test_a_peer_that_ends_tcp_and_does_not_read_is_aborted_after_close_timeout() -> None:
    async with held(slow=True, close_timeout=0.1, ping_interval=None) as (ws, peer):
        ws.send(bytes(500_000))
        await asyncio.sleep(0)
        peer.sock.shutdown(1)
        await ws.wait_closed()
        assert ws.close_code == 1006


async def test_wait_closed_can_be_cancelled_and_awaited_by_several() -> None:
    async with held() as (ws, peer):
        waiting = [asyncio.ensure_future(ws.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        ws.close()
        await peer.finish()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), asyncio.CancelledError, type(None)]
        await ws.wait_closed()


async def test_abort_ends_without_a_closing_handshake() -> None:
    async with held() as (ws, peer):
        ws.abort()
        assert await peer.closed() is None
        await is_closed(ws)
        assert ws.close_code == 1006
        ws.abort()


# -- started by the peer


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (1008, "policy"), (4999, "ü")])
async def test_the_peers_close_is_answered_with_its_code(code: int, reason: str) -> None:
    async with held() as (ws, peer):
        await peer.start_close(code, reason)
        assert await peer.closed() == (code, reason)
        assert await peer.read() == b""
        await is_closed(ws)
        assert (ws.close_code, ws.close_reason) == (code, reason)
        error = await end_of(ws)
        assert isinstance(error, rawws.ConnectionClosedOK) is (code in {1000, 1001})
        assert (error.rcvd, error.sent) == (rawws.Close(code, reason), rawws.Close(code, reason))


async def test_a_close_without_a_code_is_answered_without_one() -> None:
    async with held() as (ws, peer):
        await peer.write(b"\x88\x80\x00\x00\x00\x00")
        assert await peer.read() == b"\x88\x00"
        assert await peer.read() == b""
        await is_closed(ws)
        assert (ws.close_code, ws.close_reason) == (1005, "")
        assert isinstance(await end_of(ws), rawws.ConnectionClosedOK)


async def test_both_sides_close_at_the_same_time() -> None:
    async with held() as (ws, peer):
        peer.connection.close(4001, "peer")
        ws.close(4000, "server")
        await peer.flush()
        assert await peer.finish() == (4000, "server")
        await is_closed(ws)
        error = await end_of(ws)
        assert (error.rcvd, error.sent, error.rcvd_then_sent) == ((4001, "peer"), (4000, "server"), False)


async def test_nothing_after_the_peers_close_is_processed() -> None:
    async with held() as (ws, peer):
        peer.connection.close(1000)
        await peer.write(b"".join(peer.connection.take_data()) + HI + UNMASKED)
        assert await peer.closed() == (1000, "")
        assert isinstance(await end_of(ws), rawws.ConnectionClosedOK)


async def test_the_end_of_tcp_without_a_close_is_1006() -> None:
    async with held() as (ws, peer):
        peer.sock.shutdown(1)
        assert await peer.closed() is None
        await is_closed(ws)
        assert (ws.close_code, ws.close_reason) == (1006, "")
        error = await end_of(ws)
        assert isinstance(error, rawws.ConnectionClosedError)
        assert (error.rcvd, error.sent) == (None, None)


async def test_the_end_of_tcp_in_the_middle_of_a_frame_is_1006() -> None:
    async with held() as (ws, peer):
        await peer.write(HI[:5])
        peer.close()
        await is_closed(ws)
        assert ws.close_code == 1006


async def test_a_reset_is_1006() -> None:
    async with held() as (ws, peer):
        peer.reset()
        await is_closed(ws)
        assert ws.close_code == 1006
        assert isinstance(await end_of(ws), rawws.ConnectionClosedError)


async def test_a_reset_while_both_sides_close_is_1006() -> None:
    async with held() as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        await peer.closed()
        peer.reset()
        await closing
        assert ws.close_code == 1006


async def test_close_code_and_reason_are_none_while_the_connection_is_open() -> None:
    async with held() as (ws, _):
        assert (ws.close_code, ws.close_reason, ws.ready_state) == (None, None, rawws.State.OPEN)


# -- violations of the protocol

VIOLATIONS = {
    "not masked": (b"\x81\x02hi", 1002),
    "reserved bit": (b"\xc1\x82\x00\x00\x00\x00hi", 1002),
    "unknown opcode": (b"\x83\x80\x00\x00\x00\x00", 1002),
    "continuation of nothing": (b"\x80\x80\x00\x00\x00\x00", 1002),
    "fragmented ping": (b"\x09\x80\x00\x00\x00\x00", 1002),
    "long ping": (b"\x89\xfe\x00\x7e\x00\x00\x00\x00", 1002),
    "close of one byte": (b"\x88\x81\x00\x00\x00\x00\x03", 1002),
    "close code 1005": (b"\x88\x82\x00\x00\x00\x00\x03\xed", 1002),
    "text that is no utf-8": (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
    "too large": (b"\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01\x00\x00\x00\x00", 1009),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_is_answered_with_its_close_code(violation: str) -> None:
    data, code = VIOLATIONS[violation]
    async with held() as (ws, peer):
        await peer.write(data)
        close = await peer.closed()
        assert close is not None
        assert close[0] == code
        assert close[1]
        # The server ends its side at once, and what the peer still sends is no RST that overtakes the Close.
        assert await peer.read() == b""
        peer.close()
        await is_closed(ws)
        error = await end_of(ws)
        assert isinstance(error, rawws.ConnectionClosedError)
        assert error.sent == close


async def test_a_violation_is_logged_for_those_who_want_to_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "rawws.server")
    async with held() as (ws, peer):
        await peer.write(b"\x83\x80\x00\x00\x00\x00")
        await peer.closed()
        peer.close()
        await is_closed(ws)
    assert "broke the protocol: opcode is 0x3, allowed are 0x0 to 0x2 and 0x8 to 0xa" in caplog.text


async def test_a_message_before_a_violation_in_one_segment_is_answered() -> None:
    async def echo(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo) as server, connected(server) as peer:
        await peer.write(HI + UNMASKED)
        assert await peer.message() == "hi"
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1002


async def test_a_peer_that_goes_on_sending_after_a_violation_still_gets_the_close_and_is_dropped() -> None:
    """Peers were measured that keep such a connection for 20 to 30 s."""
    async with held(close_timeout=0.3) as (ws, peer):
        await peer.write(UNMASKED)
        with sends_on(peer, LONG * 20):
            close = await peer.closed()
            assert close is not None
            assert close[0] == 1002
            await ws.wait_closed()


async def test_a_violation_in_answer_to_our_close_ends_the_connection() -> None:
    async with held(close_timeout=60) as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        assert await peer.closed() == (1000, "")
        await peer.write(UNMASKED)
        assert await peer.read() == b""
        peer.close()
        await closing
        assert ws.close_code == 1006


async def test_a_peer_that_does_not_read_its_violations_close_is_dropped() -> None:
    async with held(slow=True, ping_interval=None, close_timeout=0.3) as (ws, peer):
        ws.send(bytes(500_000))
        await peer.write(UNMASKED)
        await eventually(lambda: ws.ready_state is rawws.State.CLOSING)
        assert ws.buffered > 0
        await ws.wait_closed()
        assert ws.close_code == 1006
        assert ws.buffered == 0
        # What it reads now ends in the middle, before its Close.
        assert len(await peer.read_to_end()) < 500_000


async def test_the_reason_of_a_violation_is_not_longer_than_a_close_may_carry(logged: Logged) -> None:
    async with held(max_size=1 << 40) as (_, peer):
        await peer.write(b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4))
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1009
        assert len(close[1].encode()) <= 123


async def test_handlers_that_wait_elsewhere_do_not_hold_up_the_peers_close() -> None:
    async with held() as (ws, peer):
        await peer.send("unread")
        await peer.start_close(1000, "bye")
        assert await peer.finish() == (1000, "bye")
        await is_closed(ws)
        assert ws.close_reason == "bye"


async def test_a_close_while_the_handler_answers_a_backlog_sends_the_handlers_code() -> None:
    """The peer's Close is here already: the handler's own close then answers it."""

    async def handler(ws: rawws.WebSocket) -> None:
        assert await ws.recv() == "hi"
        await ws.send("answer")
        await ws.close(4000, "mine")

    async with serve(handler) as server, connected(server) as peer:
        peer.connection.send("hi")
        await peer.start_close(1000)
        assert await peer.event() == "answer"
        assert await peer.finish() == (4000, "mine")


@pytest.mark.parametrize(("close_timeout", "longest"), [(None, 2.0), (60, 2.0), (0.5, 0.5)])
async def test_a_violator_has_two_seconds_at_most_to_read_its_close_whatever_the_close_timeout(
    close_timeout: float | None, longest: float
) -> None:
    async with held(close_timeout=close_timeout, ping_interval=None) as (ws, peer):
        began = time.monotonic()
        await peer.write(UNMASKED)
        assert await peer.closed() is not None
        due = ws.deadline
        assert began + longest <= due <= time.monotonic() + longest
        # What still comes moves nothing.
        before = ws.bytes_received
        await peer.write(LONG)
        await eventually(lambda: ws.bytes_received > before)
        assert ws.deadline == due
        peer.close()
        await is_closed(ws)
