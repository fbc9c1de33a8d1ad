"""Events: what is published to a channel to what goes beside its data in a hub, and back; a channel to its topic."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from rawws.topics import Publication

__all__ = ["GatewayEvent", "app_of_client", "excluded_from", "extra_of_event", "is_cached", "topic_of_channel"]

# What stands between an app and a channel in the name of a topic: no app has it in its id.
BETWEEN: Final = "/"
# Beside the data of an event that somebody does not get.
EXCEPT: Final = '"except":'


class GatewayEvent(NamedTuple):
    """What is published to a channel: a name and data, as the publisher wrote them."""

    # None for a bare message.
    name: str | None
    data: str | bytes
    # Who does not get it, in the spelling of a socket id, and who said it, "" for nobody.
    exclude: str = ""
    user: str = ""
    # Whether the data is the text of JSON that has another type than a string.
    is_json: bool = False
    # Whether a client said it; then it is in no cache.
    by_client: bool = False


def app_of_client(client: Any) -> str:
    """Return the id of the app that a client of rawws.v1 is at: what it calls a topic is a channel of that."""
    return str(client.path_params["app"])


def topic_of_channel(app: str, channel: str) -> str:
    """Return the topic in which the events of a channel are published."""
    return f"{app}{BETWEEN}{channel}"


def is_cached(channel: str) -> bool:
    """Tell whether a channel is one whose last event is given to newcomers (`cache-`, behind what else it is)."""
    for prefix in ("private-encrypted-", "private-", "presence-"):
        if channel.startswith(prefix):
            return channel.startswith("cache-", len(prefix))
    return channel.startswith("cache-")


def extra_of_event(event: GatewayEvent) -> str:
    """Return what goes beside the data of an event, as JSON without braces."""
    members: dict[str, object] = {"json": True} if event.is_json else {}
    beside = {"event": event.name, "user": event.user, "except": event.exclude}
    members |= {name: value for name, value in beside.items() if value}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))[1:-1]


def excluded_from(publication: Publication) -> str:
    """Return who does not get a publication, in the spelling of a socket id, "" for nobody."""
    # Most exclude nobody, and each is asked for each of its connections.
    return "" if EXCEPT not in publication.extra else str(members_beside_event(publication.extra)["except"])


@lru_cache(256)
def members_beside_event(extra: str) -> dict[str, Any]:
    """Return what goes beside the data of an event, by its names."""
    found: dict[str, Any] = json.loads(f"{{{extra}}}")
    return found
