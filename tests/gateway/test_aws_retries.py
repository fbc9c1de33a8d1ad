"""What boto3 tries again by itself is done once."""

from __future__ import annotations

from tests.gateway.aws_running import aws_gateway, chat_api, sdk
from tests.gateway.relays import relay


async def test_a3_a_message_whose_answer_is_lost_is_sent_once() -> None:
    async with aws_gateway(chat_api("http://127.0.0.1:9/")) as gateway, gateway.connect() as ws:
        async with relay(lambda: gateway.port) as between:
            between.cuts = 1
            client = sdk(between.port, retries={"mode": "standard"})
            sent = await client.post(gateway.connection_id, "once")
            assert sent["ResponseMetadata"]["RetryAttempts"] == 1
            assert not between.cuts
            # Two calls are two messages, also where they say the same.
            await client.post(gateway.connection_id, "once")
            await client.post(gateway.connection_id, "end")
        assert [await ws.recv() for _ in range(3)] == ["once", "once", "end"]
