"""The client without asyncio: for scripts, for views of Django and Flask, for threads (docs/use/client.md)."""

from __future__ import annotations

from .connection import ClientConnection, connect
from .publishing import publish
from .topics import HubClient, TopicSubscription

__all__ = ["ClientConnection", "HubClient", "TopicSubscription", "connect", "publish"]
