"""Sending: whatever becomes of a message, it ends in one count, and no secret in a log."""

from __future__ import annotations

import asyncio
import logging
import sys

import httpx2
import pytest

from rawws.integrations.push import (
    PushDevice,
    PushMessage,
    PushOutcome,
    PushSender,
    WebPush,
    new_vapid_key,
    sending,
)
from rawws.integrations.push import requests as pushing
from rawws.integrations.push.messages import outcome_again, outcome_refused
from rawws.integrations.push.requests import PushAnswer, PushClient, PushRequest
from tests.gateway.backends import BAD_BACKENDS, bad_backend
from tests.integrations.push_doubles import (
    TOKEN,
    Browser,
    apns_device,
    apns_of,
    fcm_device,
    fcm_of,
    push_double,
    web_of,
)
from tests.processes import free_port
from tests.server.peers import Logged, eventually

HELLO = PushMessage("Hello", "a text that is nobody's business")
COUNTS = ("sent", "gone", "refused", "expired", "dropped", "lost")


def counts(sender: PushSender, service: str = "apns") -> dict[str, int]:
    """Return what became of messages, of that what is not 0."""
    return {name: count for name in COUNTS if (count := getattr(sender.stats[service], name))}


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next try come at once."""
    monkeypatch.setattr(sending, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.001)


class Service:
    """A service without a network: `outcomes` are those of its tries, then all is sent."""

    name = "apns"

    def __init__(self, *outcomes: PushOutcome | Exception, url: str = "") -> None:
        self.outcomes = list(outcomes)
        self.url = url
        self.lefts: list[float] = []
        self.going = asyncio.Event()
        self.going.set()

    def check(self, device: PushDevice) -> None:
        """Take all."""

    def host_of(self, device: PushDevice) -> str:
        return device.token

    async def request(self, device: PushDevice, message: PushMessage, left: float, client: PushClient) -> PushRequest:
        self.lefts.append(left)
        await self.going.wait()
        found = self.outcomes.pop(0) if self.outcomes else PushOutcome("sent")
        if isinstance(found, Exception):
            raise found
        self.found = found
        return PushRequest(self.url, (), b"")

    def outcome(self, device: PushDevice, answer: PushAnswer) -> PushOutcome:
        return self.found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request be answered by nothing."""

    async def send(self: PushClient, request: PushRequest) -> PushAnswer:
        return PushAnswer(200, {}, b"")

    monkeypatch.setattr(PushClient, "send", send)


async def test_messages_wait_for_their_service_and_are_tried_again_until_it_takes_them(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    soon(monkeypatch)
    async with push_double() as (double, tls):
        double.answer(503)
        double.answer(429, {"reason": "TooManyRequests"})
        async with PushSender(apns_of(double), fcm_of(double), tls=tls) as sender:
            assert sender.send(apns_device(), HELLO)
            assert sender.send(fcm_device(), HELLO)
            assert sender.waiting == 2
            await eventually(lambda: sender.waiting == 0)
            assert counts(sender) == counts(sender, "fcm") == {"sent": 1}
            assert sender.stats["apns"].retries + sender.stats["fcm"].retries == 2
        assert len(double.pushed) == 2
    for line in logged.left():
        assert TOKEN not in line
        assert "nobody" not in line
    take_all(logged)


def take_all(logged: Logged) -> None:
    """Take what was logged of services that failed."""
    for record in logged._records:
        if record.name == "rawws.push":
            assert record.levelno == logging.WARNING
            logged._taken.append(record)


async def test_a_device_that_is_gone_is_told_of_once_and_another_may_fail_to_be_forgotten(
    offline: None, logged: Logged
) -> None:
    gone: list[str] = []

    async def forget(device: PushDevice) -> None:
        gone.append(device.id)
        if len(gone) == 2:
            raise ZeroDivisionError

    service = Service(*[PushOutcome("gone", "Unregistered")] * 2)
    async with PushSender(service, on_gone=forget) as sender:
        sender.send(apns_device(), HELLO)
        sender.send(apns_device(), HELLO)
        await eventually(lambda: sender.waiting == 0)
        assert counts(sender) == {"gone": 2}
    assert gone == ["phone", "phone"]
    logged.take("a device of apns that is gone could not be forgotten", ZeroDivisionError, "rawws.push")
    plain: list[PushDevice] = []
    for on_gone in (None, plain.append):
        async with PushSender(Service(PushOutcome("gone")), on_gone=on_gone) as sender:
            sender.send(apns_device(), HELLO)
            await eventually(lambda: counts(sender) == {"gone": 1})
    assert len(plain) == 1
    asked = asyncio.get_running_loop().create_future()
    asked.cancel()
    # What the future of somebody else raises ends no try without a count.
    async with PushSender(Service(PushOutcome("gone")), on_gone=lambda _: asked.result()) as sender:
        sender.send(apns_device(), HELLO)
        await eventually(lambda: counts(sender) == {"gone": 1})
    logged.take("a device of apns that is gone could not be forgotten", RuntimeError, "rawws.push")


async def test_what_is_refused_or_a_mistake_of_ours_is_counted_and_said_without_a_secret(
    offline: None, logged: Logged
) -> None:
    service = Service(outcome_refused("BadDeviceToken"), ValueError("the endpoint is none"), KeyError(TOKEN))
    async with PushSender(service) as sender:
        for _ in range(3):
            sender.send(apns_device(), HELLO)
        await eventually(lambda: sender.waiting == 0)
        assert counts(sender) == {"refused": 3}
    # One line a minute.
    logged.take("push by apns fails: BadDeviceToken; ", name="rawws.push")


async def test_no_library_logs_a_token_or_an_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with push_double() as (double, tls):
        browser = Browser(double)
        async with PushSender(apns_of(double), fcm_of(double), web_of(double), tls=tls) as sender:
            for device in (apns_device(), fcm_device(), browser.device):
                sender.send(device, HELLO)
        assert [sender.stats[name].sent for name in ("apns", "fcm", "web")] == [1, 1, 1]
        secrets = [TOKEN, browser.endpoint, "/push/", fcm_device().token, HELLO.body, *double.access, *double.tokens]
        assert [secret for secret in secrets if secret in caplog.text] == []
        # What an application asks itself is logged as before.
        async with httpx2.AsyncClient(verify=tls) as client:
            await client.get(f"{double.url}/of-the-application")
        assert any("/of-the-application" in each.getMessage() for each in caplog.records if each.name == "httpx2")


async def test_a_message_is_given_up_when_its_time_is_over(
    offline: None, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    again = outcome_again("ServiceUnavailable", 3599.0)
    service = Service(outcome_again("later"), again, again)
    soon(monkeypatch)
    async with PushSender(service, drain=0) as sender:
        # Now or never.
        sender.send(apns_device(), PushMessage("Hello", ttl=0))
        await eventually(lambda: counts(sender) == {"expired": 1})
        sender.send(apns_device(), PushMessage("Hello", ttl=3000))
        await eventually(lambda: counts(sender) == {"expired": 2})
        sender.send(apns_device(), PushMessage("Hello", ttl=4000))
        await eventually(lambda: sender.stats["apns"].retries == 1)
        assert sender.waiting == 1
    assert counts(sender) == {"expired": 2, "lost": 1}
    assert service.lefts[0] == 0
    assert all(2900 < left <= 4000 for left in service.lefts[1:])
    take_all(logged)


async def test_what_there_is_no_room_for_is_dropped_and_counted(
    offline: None, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(sending, "MAX_WAITING", 3)
    monkeypatch.setattr(sending, "MAX_REQUESTS", 2)
    service = Service()
    service.going.clear()
    async with PushSender(service) as sender:
        assert [sender.send(apns_device(), HELLO) for _ in range(5)] == [True, True, True, False, False]
        logged.take("push by apns fails: 3 messages wait, the limit", name="rawws.push")
        await eventually(lambda: len(service.lefts) == 2)
        assert sender.waiting == 3
        assert "3 waiting" in repr(sender)
        service.going.set()
        await eventually(lambda: sender.waiting == 0)
        assert counts(sender) == {"sent": 3, "dropped": 2}


async def test_what_waits_at_the_end_is_sent_or_counted_as_lost(offline: None, logged: Logged) -> None:
    service = Service()
    async with PushSender(service) as sender:
        for _ in range(100):
            sender.send(apns_device(), HELLO)
    assert counts(sender) == {"sent": 100}
    service.going.clear()
    async with PushSender(service, drain=0.01) as sender:
        for _ in range(100):
            sender.send(apns_device(), HELLO)
    assert counts(sender) == {"lost": 100}
    logged.take("push by apns ends, and 100 messages that wait are lost", name="rawws.push")


async def test_a_sender_whose_closing_is_cancelled_counts_what_it_loses(offline: None, logged: Logged) -> None:
    service = Service()
    service.going.clear()
    sender = PushSender(service, drain=3600)
    sender.start()
    sender.send(apns_device(), HELLO)
    await eventually(lambda: service.lefts)
    closing = asyncio.ensure_future(sender.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert counts(sender) == {"lost": 1}
    logged.take("push by apns ends, and 1 messages that wait are lost", name="rawws.push")


async def test_a_service_or_a_host_that_answers_nothing_holds_up_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "TIMEOUT", 3600.0)
    many = 2 * sending.MAX_REQUESTS
    async with push_double() as (silent, tls), push_double() as (double, also):
        del also  # of one authority
        silent.hangs = asyncio.Event()
        web = WebPush(new_vapid_key()[0], subject="mailto:ops@example.com", hosts=[silent.host, double.host])
        hanging, browser = Browser(silent), Browser(double)
        async with PushSender(apns_of(silent), fcm_of(double), web, tls=tls) as sender:
            for _ in range(many):
                sender.send(apns_device(), HELLO)
                sender.send(hanging.device, HELLO)
            await eventually(lambda: silent.requests == 2 * sending.MAX_OF_HOST)
            sender.send(fcm_device(), HELLO)
            sender.send(browser.device, HELLO)
            await eventually(lambda: [counts(sender, name) for name in ("fcm", "web")] == [{"sent": 1}] * 2)
            assert sender.waiting == 2 * many
            silent.hangs.set()
            await eventually(lambda: sender.waiting == 0)
        assert [counts(sender, name) for name in ("apns", "web")] == [{"sent": many}, {"sent": many + 1}]


async def test_what_waits_for_a_host_at_the_end_is_lost_and_counted(
    offline: None, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MAX_OF_HOST", 2)
    service = Service()
    service.going.clear()
    async with PushSender(service, drain=0.01) as sender:
        for _ in range(10):
            sender.send(apns_device(), HELLO)
        await eventually(lambda: len(service.lefts) == 2)
    assert (counts(sender), len(service.lefts), sender.waiting) == ({"lost": 10}, 2, 0)
    logged.take("push by apns ends, and 10 messages that wait are lost", name="rawws.push")


async def test_one_that_was_never_begun_ends_and_services_have_names_of_their_own() -> None:
    sender = PushSender(Service())
    await sender.close()
    with pytest.raises(ValueError, match="two services have one name"):
        PushSender(Service(), Service())
    for refused in (sender.check, lambda device: sender.send(device, HELLO)):
        with pytest.raises(ValueError, match="the device is of 'fcm', services are apns"):
            refused(fcm_device())
    with pytest.raises(ValueError, match="services are none"):
        PushSender().check(fcm_device())


@pytest.mark.parametrize("name", [name for name in BAD_BACKENDS if name != "bomb"])
async def test_a_service_that_is_none_costs_a_try(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "TIMEOUT", 0.3)
    async with bad_backend(BAD_BACKENDS[name][0]) as running:
        async with PushSender(Service(url=running.url)) as sender:
            outcome = await sender.deliver(apns_device(), HELLO)
    assert outcome.kind == "again", outcome
    assert running.url not in outcome.reason


async def test_a_service_that_is_not_there_costs_a_try() -> None:
    async with PushSender(Service(url=f"http://127.0.0.1:{free_port()}/")) as sender:
        assert await sender.deliver(apns_device(), HELLO) == PushOutcome("again", "ConnectError")


def test_an_answer_may_be_anything() -> None:
    for body in (b"", b"[]", b"\xff", b"[" * 100_000, b"5"):
        assert PushAnswer(200, {}, body).json() == {}
    assert PushAnswer(200, {}, b'{"a":1}').json() == {"a": 1}


def test_without_httpx2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"pip install 'rawws\[push\]'"):
        PushSender(Service())
