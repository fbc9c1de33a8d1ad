"""HTTP links: a URL of a hub to what it says by requests: an event stream or polls, and posts beside them.

Laws:
1. Of one topic, a request begins behind what the last one brought: between two of them nothing is lost.
2. Where another request is due, what the last one still brings is passed over: the next one brings it again.
3. A topic that the server cannot serve for now holds up no other.
4. A server that holds no poll, and has nothing to say, is not asked without a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote, unquote

from rawws import clock
from rawws.errors import HubError, InvalidStatus
from rawws.net.cancellation import cancel_all
from rawws_sse import EventTooLarge

from .envelopes import HubEnvelope, ServerEnvelopeError, parse_envelope, serialize_request_fields
from .hub_links import TURN, AnswerTooLargeError, ChannelLink
from .subscriptions import EARLIEST_CURSOR, parse_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hub_links import HubAddress, HubLink
    from .hub_requests import HubRequests, PendingRequest
    from .subscriptions import Channel

__all__ = ["PollLink", "StreamLink"]

# For how long a server is asked to hold a poll, in seconds: the most that it does.
HELD: Final = 25
# From a poll that is to be held, and brought nothing, to the next one, at least so many seconds: a server that ends it
# at once, or a cache between, would be asked a thousand times a second.
LEAST_INTERVAL = 1.0
# Between two looks at who is there, in seconds, where nobody tells.
PRESENCE_INTERVAL = 10.0
# What a hub says of a topic that it cannot serve for now, though others; and until it is asked for again, in seconds.
UNAVAILABLE: Final = "unavailable"
UNAVAILABLE_WAIT = 2.0


class HttpLink(ChannelLink):
    """What event streams and polls have: requests that begin anew where the topics change, and posts beside them."""

    __slots__ = ("_address", "_aside", "_asked", "_look", "_restart")

    kind: str

    def __init__(
        self,
        address: HubAddress,
        channels: dict[str, Channel],
        requests: HubRequests,
        opened: Callable[[HubLink], object],
    ) -> None:
        super().__init__(channels, requests, opened)
        self._address = address
        self._restart = asyncio.Event()
        # Set when there is something to be posted, and when somebody wants to know who is there.
        self._asked = asyncio.Event()
        self._look = asyncio.Event()
        # The topics that the server cannot serve for now, and what brings them back.
        self._aside: dict[Channel, asyncio.TimerHandle] = {}

    def enter(self, channel: Channel) -> None:
        """Have it bring a topic too, or bring it anew."""
        self.leave(channel)
        if channel.watch:
            self._look.set()

    def leave(self, channel: Channel) -> None:
        """Have it bring a topic no more."""
        channel.leave()
        self._restart.set()

    def flush(self) -> None:
        """Post the requests that wait."""
        self._asked.set()

    async def run(self) -> None:
        """Take what comes until a request breaks, and raise why it did."""
        tasks = [asyncio.ensure_future(work) for work in (self._follow(), self._post_all(), self._look_around())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for timer in self._aside.values():
                timer.cancel()
            await cancel_all(*tasks)

    async def prove(self) -> None:
        """Wait until a request for what is subscribed to brings something."""
        if not (wanted := self._wanted()):
            raise ConnectionError("there is no topic to ask for")
        await self._try(wanted)

    def drop(self) -> None:
        """Do nothing: no request is under way."""

    async def _try(self, asked: dict[Channel, str]) -> None:
        """Wait for the first sign of a request."""
        raise NotImplementedError

    async def _read(self, asked: dict[Channel, str]) -> None:
        """Take what one request brings for channels, each since a cursor."""
        raise NotImplementedError

    async def _follow(self) -> None:
        """Bring what is subscribed to, by one request after the other."""
        while True:
            # What is said in one turn needs one new request.
            await asyncio.sleep(0)
            self._restart.clear()
            wanted = self._wanted()
            if not wanted:
                await self._look_for_hub()
                await self._restart.wait()
                continue
            reading = asyncio.ensure_future(self._read(wanted))
            restarting = asyncio.ensure_future(self._restart.wait())
            try:
                await asyncio.wait([reading, restarting], return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
            finally:
                await cancel_all(reading, restarting)

    def _wanted(self) -> dict[Channel, str]:
        """Return what is to be asked for, and since which cursors."""
        return {
            # Those that are full wait for nothing, but the connection goes on behind what it brought.
            channel: channel.since or (channel.cursor if channel.live else "")
            for channel in self.channels.values()
            if channel.wanted and channel not in self._aside
        }

    def _fields(self, asked: dict[Channel, str]) -> list[tuple[str, str]]:
        """Return the fields of a query for channels, each since a cursor."""
        starts = "&".join(f"{quote(channel.key, safe='')}={since}" for channel, since in asked.items() if since)
        return [*(channel.field for channel in asked), *([("since", starts)] if starts else [])]

    async def _look_for_hub(self) -> None:
        """Find out by a poll without a topic whether a hub is there, and lets this client in."""
        response = await self._address.request("GET", [("timeout", "0")])
        if error_in(response.body) is None:
            raise InvalidStatus(response, f"the server answered {response.status} and not as a hub")
        self.opened(self)

    async def _refused(self, refusal: InvalidStatus, asked: dict[Channel, str]) -> None:
        """Find out what of a request was refused, and go on without it."""
        error = error_in(refusal.response.body)
        # These mean all of the hub, and not one topic.
        if error is None or refusal.status in {401, 404} or (refusal.status == 403 and error.code != "refused"):
            raise refusal
        faults = dict.fromkeys(asked, error) if len(asked) == 1 else await self._faults(asked)
        if not faults and error.code != UNAVAILABLE:
            # Each alone is allowed: they are too many.
            faults = {[*asked][-1]: error}
        for channel, why in faults.items():
            if why.code == UNAVAILABLE and channel.live:
                self._set_aside(channel)
            else:
                self.fail(channel, why, asked[channel])

    async def _faults(self, asked: dict[Channel, str]) -> dict[Channel, HubError]:
        """Find out which channels are refused, each asked for alone."""
        faults = {}
        for channel, since in asked.items():
            response = await self._address.request("GET", [*self._fields({channel: since}), ("timeout", "0")])
            why = None if response.status in {200, 204} else error_in(response.body)
            if why is not None:
                faults[channel] = why
        return faults

    def _set_aside(self, channel: Channel) -> None:
        """Ask for others meanwhile: the hub had the topic, and will have it again."""

        def bring_back() -> None:
            del self._aside[channel]
            self._restart.set()

        self._aside[channel] = asyncio.get_running_loop().call_later(UNAVAILABLE_WAIT, bring_back)

    async def _post_all(self) -> None:
        """Post what is asked for, one request after the other, so they stay in order."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while (request := self.requests.take()) is not None:
                await self._post(request)

    async def _post(self, request: PendingRequest) -> None:
        try:
            response = await self._address.request("POST", body=request.text)
            error = None if response.status == 200 else error_in(response.body)
            if response.status != 200 and error is None:
                error = HubError("http", f"the server answered {response.status}", response.status)
            if error is None:
                self.requests.answer(parse_envelope(response.body.decode()))
        except Exception as failure:  # noqa: BLE001 - all that can go wrong on the way to a server
            reason = f"the connection broke before the answer: it may be done, or not ({failure})"
            error = HubError("unanswered", reason)
        if error is not None:
            self.requests.forget(request)
            request.fail(error)

    async def _look_around(self) -> None:
        """Ask who is there, for those who want to know: over HTTP nobody tells."""
        while True:
            self._look.clear()
            for channel in tuple(self.channels.values()):
                if channel.watch:
                    body = serialize_request_fields({"id": self.requests.next_id(), "presence": channel.topic})
                    try:
                        response = await self._address.request("POST", body=body)
                        found = parse_envelope(response.body.decode())
                    except (OSError, ValueError, ServerEnvelopeError):
                        continue  # the next look is due soon
                    if found.members is not None:
                        channel.list(found.members, found.total)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PRESENCE_INTERVAL):
                    await self._look.wait()


@final
class StreamLink(HttpLink):
    """An event stream."""

    __slots__ = ()

    kind = "stream"

    async def _try(self, asked: dict[Channel, str]) -> None:
        feed = await self._address.follow(self._fields(asked))
        async with feed, asyncio.timeout(self._address.options.open_timeout):
            await anext(feed)

    async def _read(self, asked: dict[Channel, str]) -> None:
        seconds = self._address.options.open_timeout
        feed = await self._address.follow(self._fields(asked))
        count = 0
        try:
            # A proxy may let the head through, and hold the rest.
            async with feed, asyncio.timeout(seconds) as limit:
                async for event in feed:
                    limit.reschedule(None)
                    self._hear(parse_envelope(event.data or ""), asked)
                    count += 1
                    if not count % TURN:
                        await asyncio.sleep(0)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"the stream brought nothing for {seconds:g} s") from None
        except EventTooLarge as error:
            raise AnswerTooLargeError(str(error)) from None
        except InvalidStatus as refusal:
            await self._refused(refusal, asked)
            return
        raise ConnectionError("the server ended the stream")

    def _hear(self, envelope: HubEnvelope, asked: dict[Channel, str]) -> None:
        if self._restart.is_set():
            return  # another stream is due, and begins where this one is
        self.opened(self)
        channel = self.channels.get(envelope.channel)
        if channel is None or channel not in asked:
            return
        if channel.take(envelope, asked[channel]) or not channel.wanted:
            self.tidy(channel)
            self._restart.set()


@final
class PollLink(HttpLink):
    """One poll after the other."""

    __slots__ = ()

    kind = "poll"

    async def _try(self, asked: dict[Channel, str]) -> None:
        response = await self._address.request("GET", [*self._fields(asked), ("timeout", "0")])
        if response.status not in {200, 204}:
            raise InvalidStatus(response, f"the server answered {response.status}")

    async def _read(self, asked: dict[Channel, str]) -> None:
        # The first one is answered at once: so it is known to work, and what is subscribed to begins.
        held = HELD if all(channel.live for channel in asked) else 0
        fields = [*self._fields(asked), ("timeout", str(held))]
        began = clock.monotonic()
        response = await self._address.request("GET", fields, held=held)
        if response.status not in {200, 204}:
            await self._refused(InvalidStatus(response, f"the server answered {response.status}"), asked)
            return
        if self._restart.is_set():
            return  # another poll is due, and begins where this one did
        found = None if response.status == 204 else parse_envelope(response.body.decode())
        self.opened(self)
        if found is not None:
            self._take_all(found, asked)
        if held and (found is None or not found.publications):
            await asyncio.sleep(began + LEAST_INTERVAL - clock.monotonic())

    def _take_all(self, found: HubEnvelope, asked: dict[Channel, str]) -> None:
        """Take what a poll brought."""
        places = cursors_in(found.cursor)
        for channel, since in asked.items():
            if (now := places.get(channel.key)) is None:
                raise ServerEnvelopeError(f"the server answered a poll without a cursor of {channel.topic!r}")
            mine = [publication for publication in found.publications if publication.channel == channel.key]
            epoch, offset = parse_place(now)
            start = f"{epoch}:{offset - len(mine)}" if now else ""
            # It is told of all topics together: of one, it is known if what came leads from one cursor to the other.
            known = bool(found.recovered) or since in {start, EARLIEST_CURSOR, ""}
            if not channel.live or not known:
                channel.begin(HubEnvelope(cursor=start if known else now, recovered=known), since)
            for publication in mine:
                channel.take(publication)
            self.tidy(channel)


def cursors_in(joined: str) -> dict[str, str]:
    """Return the cursors of a joined one, by the keys of the channels."""
    pairs = (part.partition("=") for part in joined.split("&"))
    return {unquote(key): cursor for key, _, cursor in pairs}


def error_in(body: bytes) -> HubError | None:
    """Return what an answer says is wrong, None where it is none of a hub's."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("error"), str):
        return None
    reason = fields.get("reason")
    return HubError(fields["error"], reason if isinstance(reason, str) else "")
