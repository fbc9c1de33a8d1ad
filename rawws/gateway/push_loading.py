"""Push loading: the table `push` of an app to what it says, or to the mistakes in it (docs/run/push.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rawws.integrations.push import PUSH_HOSTS, Apns, Fcm, WebPush

from .config import ApnsConfig, FcmConfig, PushConfig, WebPushConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.integrations.push import PushService

    from .reading import TableReader

__all__ = ["DEVICES_NEED", "keeps_devices", "push_of", "services_of"]

HOUR: Final = 3600.0
# What devices can be kept in.
KEEPING: Final = ("redis://", "rediss://", "unix://")
DEVICES_NEED: Final = (
    f"devices are kept in a Redis, needed is a backplane of {', '.join(KEEPING)}, or "
    '"none", with which they are in the memory of one process'
)


def keeps_devices(backplane: str) -> bool:
    """Tell whether devices can be kept beside a backplane."""
    return backplane == "none" or backplane.startswith(KEEPING)


def push_of(table: TableReader | None) -> PushConfig | None:
    """Return how users who are not connected are told."""
    if table is None:
        return None
    found = PushConfig(
        after=table.seconds("after", 5.0, 0, HOUR),
        web=web_of(table.table("web")),
        apns=apns_of(table.table("apns")),
        fcm=fcm_of(table.table("fcm")),
    )
    table.end()
    if found.web is None and found.apns is None and found.fcm is None:
        table.wrong("web", "there is none of web, apns and fcm, needed is one")
    return found


def web_of(table: TableReader | None) -> WebPushConfig | None:
    """Return how browsers are pushed to."""
    if table is None:
        return None
    found = WebPushConfig(
        key=table.public_key("key"),
        subject=table.text("subject"),
        hosts=table.texts(
            "hosts",
            PUSH_HOSTS,
            pattern=r"[0-9a-z*.-]{1,253}(?::[0-9]{1,5})?",
            allowed="a host in small letters, with * for any characters, and a port where it is another than 443",
        ),
    )
    table.end()
    check(table, "key", lambda: service_of_web(found))
    return found


def apns_of(table: TableReader | None) -> ApnsConfig | None:
    """Return how devices of Apple are pushed to."""
    if table is None:
        return None
    found = ApnsConfig(
        key=table.public_key("key"),
        key_id=table.text("key_id"),
        team_id=table.text("team_id"),
        topic=table.text("topic"),
        url=table.url("url", "https://api.push.apple.com"),
    )
    table.end()
    check(table, "key", lambda: service_of_apns(found))
    return found


def fcm_of(table: TableReader | None) -> FcmConfig | None:
    """Return how devices are pushed to by Firebase."""
    if table is None:
        return None
    found = FcmConfig(account=table.public_key("account"), url=table.url("url", "https://fcm.googleapis.com"))
    table.end()
    check(table, "account", lambda: service_of_fcm(found))
    return found


def check(table: TableReader, key: str, make: Callable[[], PushService]) -> None:
    """Tell what is wrong with a service; what is missing was told."""
    if any(mistake.startswith(f"{table.path}.") for mistake in table.mistakes):
        return
    try:
        make()
    except ValueError as error:
        first = str(error).partition(" ")[0]
        table.wrong(first if table.has(first) else key, str(error))
    except ImportError as error:
        table.wrong(key, f"push needs {error.name}: pip install 'rawws[push]'")


def services_of(config: PushConfig) -> list[PushService]:
    """Return the services of an app."""
    found: list[PushService] = []
    if config.web is not None:
        found.append(service_of_web(config.web))
    if config.apns is not None:
        found.append(service_of_apns(config.apns))
    if config.fcm is not None:
        found.append(service_of_fcm(config.fcm))
    return found


def service_of_web(config: WebPushConfig) -> WebPush:
    """Return what pushes to browsers. Raises ValueError."""
    return WebPush(config.key, subject=config.subject, hosts=config.hosts)


def service_of_apns(config: ApnsConfig) -> Apns:
    """Return what pushes to devices of Apple. Raises ValueError."""
    return Apns(config.key, key_id=config.key_id, team_id=config.team_id, topic=config.topic, url=config.url)


def service_of_fcm(config: FcmConfig) -> Fcm:
    """Return what pushes by Firebase. Raises ValueError."""
    return Fcm(config.account, url=config.url)
