"""APIs that come and go while a gateway serves: a reload of the file is enough."""

from __future__ import annotations

import json

import pytest

import rawws
from rawws.gateway.loading import read_config
from tests.gateway.aws_running import KEY, aws_gateway, chat_api, sdk
from tests.gateway.running import app_file

NOWHERE = "http://127.0.0.1:9/"


async def test_an_api_that_is_new_is_served_and_one_that_is_gone_is_not() -> None:
    chat = app_file() + chat_api(NOWHERE)
    news = chat.replace('"chat"', '"news"').replace("/prod", "/news").replace(KEY, "AKIDNEWS")
    async with aws_gateway(app_file()) as gateway:
        with pytest.raises(rawws.InvalidStatus, match="404"):
            await gateway.connect()
        gateway.gateway.reload(read_config(chat))
        async with gateway.connect() as ws:
            client, ident = sdk(gateway.port), gateway.connection_id
            await client.post(ident, "hello")
            assert await ws.recv() == "hello"
            gateway.gateway.reload(read_config(news))
            # Who is there stays, and nothing is done for it any more.
            await ws.send("hello")
            assert json.loads(await ws.recv())["message"] == "Forbidden"
            with pytest.raises(client.exceptions.ForbiddenException):
                await client.post(ident, "hello")
        with pytest.raises(rawws.InvalidStatus, match="404"):
            await gateway.connect()
        assert gateway.gateway.figures_of("", "aws").refused == {404: 1}
        async with gateway.connect("/news"):
            pass
        gateway.gateway.reload(read_config(chat))
        async with gateway.connect():
            pass
