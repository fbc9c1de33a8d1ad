"""Gateways that run, with the AWS face, and the SDK that asks them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import boto3
import botocore.config

import rawws
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from rawws.gateway.model import Gateway
from tests.client.peers import port
from tests.server.peers import narrow

__all__ = ["KEY", "SECRET", "AwsGateway", "aws_gateway", "chat_api", "event_of", "sdk"]

KEY, SECRET = "AKIDLOCAL", "local-secret-7f3a"


def chat_api(url: str, *routes: str, **more: str) -> str:
    """Return the configuration of an API at /prod, with these routes to a URL, and more lines of each kind."""
    lines = [
        "[[api]]",
        'id = "chat"',
        'path = "/prod"',
        'stage = "prod"',
        f'credentials = [{{ key = "{KEY}", secret = "{SECRET}" }}]',
        more.get("api", ""),
    ]
    for route in routes:
        lines += ["[[api.route]]", f'key = "{route}"', f'url = "{url}"', more.get("route", ""), more.get(route, "")]
    return "\n".join(lines)


@final
class AwsGateway:
    """A gateway that listens."""

    def __init__(self, gateway: Gateway, server: rawws.Server) -> None:
        self.gateway = gateway
        self.server = server
        self.port = port(server)

    def connect(self, path: str = "/prod", **options: Any) -> rawws.connect:
        """Return a client that connects."""
        return rawws.connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, **options)

    @property
    def connection_id(self) -> str:
        """The id of the one connection."""
        (ident,) = self.gateway.connections
        return ident.aws


@asynccontextmanager
async def aws_gateway(text: str) -> AsyncIterator[AwsGateway]:
    """Run a gateway, with small send buffers."""
    gateway = new_gateway(read_config(text))
    async with gateway, rawws.serve(face_routes(gateway), sock=narrow(), **gateway_options(gateway)) as server:
        yield AwsGateway(gateway, server)


@final
class Sdk:
    """A client of boto3, unmodified, whose calls are made in a thread."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.exceptions = client.exceptions

    async def post(self, connection: str, data: str | bytes) -> Any:
        """Send a message."""
        return await asyncio.to_thread(self.client.post_to_connection, ConnectionId=connection, Data=data)

    async def get(self, connection: str) -> Any:
        """Ask for a connection."""
        return await asyncio.to_thread(self.client.get_connection, ConnectionId=connection)

    async def delete(self, connection: str) -> Any:
        """Close a connection."""
        return await asyncio.to_thread(self.client.delete_connection, ConnectionId=connection)


def sdk(
    port: int, path: str = "/prod", *, key: str = KEY, secret: str = SECRET, token: str | None = None, **config: Any
) -> Sdk:
    """Make a client of boto3."""
    session = boto3.session.Session(key, secret, token, region_name="eu-central-1")
    options = botocore.config.Config(**{"retries": {"total_max_attempts": 1, "mode": "standard"}, **config})
    url = f"http://127.0.0.1:{port}{path}"
    return Sdk(session.client("apigatewaymanagementapi", endpoint_url=url, config=options))


def event_of(request: rawws.HttpRequest) -> dict[str, Any]:
    """Return the event that a backend got."""
    found: dict[str, Any] = json.loads(request.body)
    return found
