"""Streams of events as streams of bytes, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from rawws_sse import Decoder, Event, EventTooLarge, decode_stream, encode, encode_stream


class Source:
    """An asynchronous generator that takes note of its end."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items
        self.ended = False

    async def generate(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(0)
                yield item
        finally:
            await asyncio.sleep(0)
            self.ended = True


class Plain:
    """An asynchronous iterator that is no generator, and has nothing to close."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items: Iterator[Any] = iter(items)

    def __aiter__(self) -> Plain:
        return self

    async def __anext__(self) -> Any:
        for item in self.items:
            return item
        raise StopAsyncIteration


EVENTS: list[Event | str] = ["a", Event("b", id="1"), Event(comment="alive"), Event("c\nd", "tick")]
RECEIVED = [Event("a", id=""), Event("b", id="1"), Event("c\nd", "tick", "1")]


@pytest.mark.parametrize("make", [Plain, lambda items: Source(items).generate()], ids=["iterator", "generator"])
def test_events_become_bytes_one_by_one_and_bytes_become_events(make: Any) -> None:
    async def scenario() -> None:
        assert [piece async for piece in encode_stream(make(EVENTS))] == [encode(event) for event in EVENTS]
        assert [event async for event in decode_stream(encode_stream(make(EVENTS)))] == RECEIVED

    asyncio.run(scenario())


def test_a_decoder_of_ones_own_goes_on_with_the_next_stream() -> None:
    async def scenario() -> None:
        decoder = Decoder()
        first = Plain([b"id: 1\nretry: 5\ndata: a\n\ndata: cut"])
        assert [event async for event in decode_stream(first, decoder)] == [Event("a", id="1")]
        assert (decoder.last_event_id, decoder.retry) == ("1", 5)
        assert [event async for event in decode_stream(Plain([b"data: b\n\n"]), decoder)] == [Event("b", id="1")]

    asyncio.run(scenario())


def test_an_event_over_the_limit_raises_behind_those_before_it() -> None:
    async def scenario() -> None:
        source = Source([b"data: a\n\ndata: 12345\n\n"])
        received = []
        with pytest.raises(EventTooLarge):
            async for event in decode_stream(source.generate(), Decoder(max_size=10)):
                received.append(event)
        assert received == [Event("a", id="")]
        assert source.ended

    asyncio.run(scenario())


@pytest.mark.parametrize(("function", "item"), [(encode_stream, "x"), (decode_stream, b"data: x\n\n")])
def test_who_leaves_a_stream_ends_its_source_at_once(function: Any, item: Any) -> None:
    async def scenario() -> None:
        source = Source([item] * 3)
        async with aclosing(function(source.generate())) as stream:
            assert await anext(stream)
            assert not source.ended
        assert source.ended

    asyncio.run(scenario())


@pytest.mark.parametrize("function", [encode_stream, decode_stream])
def test_cancelling_the_task_ends_the_source(function: Any) -> None:
    ended = []

    async def scenario() -> None:
        async def generate() -> AsyncIterator[Any]:
            try:
                await asyncio.Event().wait()
                yield None
            finally:
                ended.append(True)

        task = asyncio.ensure_future(anext(function(generate())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(scenario())


def test_what_a_source_raises_comes_through() -> None:
    async def scenario() -> None:
        async def generate() -> AsyncIterator[str]:
            yield "a"
            raise LookupError("no more")

        received = []
        with pytest.raises(LookupError, match="no more"):
            async for piece in encode_stream(generate()):
                received.append(piece)
        assert received == [b"data: a\n\n"]

    asyncio.run(scenario())


def test_what_cannot_be_encoded_ends_the_stream_and_its_source() -> None:
    async def scenario() -> None:
        source = Source(["a", Event("b", id="\n"), "c"])
        with pytest.raises(ValueError, match=r"^id is "):
            async for _ in encode_stream(source.generate()):
                pass
        assert source.ended

    asyncio.run(scenario())
