"""Django Channels: a consumer in a group of the in-memory layer, and a view of Django beside it."""
# mypy: disable-error-code="import-untyped,no-untyped-call,misc"

from __future__ import annotations

from typing import Any, ClassVar

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    LOGGING_CONFIG=None,
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402 - it wants the settings
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


class Chat(AsyncJsonWebsocketConsumer):
    groups: ClassVar = ["chat"]

    async def connect(self) -> None:
        if self.scope["url_route"]["kwargs"]["name"] == "nobody":
            await self.close()
        else:
            await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        name = self.scope["url_route"]["kwargs"]["name"]
        await self.channel_layer.group_send("chat", {"type": "say", "text": f"{name}: {content['text']}"})

    async def say(self, event: dict[str, Any]) -> None:
        await self.send_json({"text": event["text"]})


def upload(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.method} {len(request.body)} {request.get_host()}")


urlpatterns = [path("upload", upload)]

app = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(URLRouter([path("chat/<name>", Chat.as_asgi())])),
    }
)
