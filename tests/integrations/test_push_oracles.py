"""Clients of the push services that others wrote push to the doubles: so the doubles are as those services are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol
from pywebpush import WebPushException, webpush

from rawws.integrations.push import new_vapid_key
from tests.integrations.push_doubles import (
    AUTHORITY,
    KEY_ID,
    TEAM,
    TOKEN,
    TOPIC,
    Browser,
    apns_key,
    push_double,
)
from tests.server.peers import Logged


async def test_aioapns_takes_the_double_for_apple(logged: Logged) -> None:
    async with push_double() as (double, tls):
        tls.set_alpn_protocols(["h2"])
        client = APNs(key=apns_key(), key_id=KEY_ID, team_id=TEAM, topic=TOPIC, ssl_context=tls)

        class Protocol(APNsTLSClientProtocol):
            """The connection of the library, to the double."""

            APNS_SERVER = "localhost"
            APNS_PORT = double.port

            def on_data_received(self, raw_data: bytes, stream_id: int) -> None:
                # It would read the empty frame as JSON by which a response without a body ends.
                if raw_data:
                    super().on_data_received(raw_data, stream_id)

        client.pool.protocol_class = Protocol
        message = {"aps": {"alert": "Hello"}}
        try:
            taken = await client.send_notification(
                NotificationRequest(TOKEN, message, push_type=PushType.ALERT, time_to_live=60, priority=10)
            )
            assert (taken.status, taken.is_successful) == ("200", True)
            double.answer(410, {"reason": "Unregistered", "timestamp": 5000})
            gone = await client.send_notification(NotificationRequest(TOKEN, message))
            assert (gone.status, gone.description, gone.timestamp) == ("410", "Unregistered", 5000)
            logged.take("410 (Unregistered)", name="aioapns")
            refused = await client.send_notification(NotificationRequest("zz" * 32, message))
            assert (refused.status, refused.description) == ("400", "BadDeviceToken")
            logged.take("400 (BadDeviceToken)", name="aioapns")
        finally:
            client.pool.close()
        [pushed] = double.pushed
        assert (pushed.device, pushed.payload) == (TOKEN, message)


async def test_pywebpush_takes_the_double_for_a_push_service(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    async with push_double() as (double, _):
        browser = Browser(double)

        def push(**more: Any) -> int:
            subscription: dict[str, Any] = {"endpoint": browser.endpoint, "keys": browser.keys}
            with requests.Session() as session:
                # Nor an authority of the environment.
                session.trust_env = False
                session.verify = str(tmp_path / "authority.pem")
                answer = webpush(
                    subscription,
                    json.dumps({"title": "Hello"}),
                    vapid_private_key=new_vapid_key()[0],
                    vapid_claims={"sub": "mailto:ops@example.com"},
                    ttl=60,
                    timeout=60,
                    requests_session=session,
                    **more,
                )
            assert not isinstance(answer, str)
            return int(answer.status_code)

        assert await asyncio.to_thread(push) == 201
        [pushed] = double.pushed
        assert pushed.payload == {"title": "Hello"}
        double.browsers.clear()
        with pytest.raises(WebPushException) as caught:
            await asyncio.to_thread(push)
        assert caught.value.response is not None
        assert caught.value.response.status_code == 404
