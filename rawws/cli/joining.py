"""Joining: what `rawws serve` was told to what joins the hubs of an application: an engine, or a broker of workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit, urlunsplit

from rawws.net.loops import loop_factory
from rawws.topics.backplane_urls import backplane_of
from rawws.topics.shared import SharedBackplane, share

from .loading import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from rawws.topics.backplane import Backplane

    from .supervisor import SupervisorChannel

__all__ = ["JoinedHubs"]


@final
class JoinedHubs:
    """All hubs that are made from now on: those of several processes by the engine at a URL, or by a broker.

    `folder` is what the workers share, None where there are none. `option` is where the URL was said. Raises
    CommandError for a URL that names no engine, or one whose package is missing.
    """

    def __init__(
        self, url: str | None, folder: Path | None, *, prefix: str = "rawws", option: str = "--backplane"
    ) -> None:
        self.url = url
        self.prefix = prefix
        self.folder = folder
        if url is not None:
            try:
                for number in (1, 2):
                    self._make(number)
            except (ImportError, ValueError) as error:
                raise CommandError(f"{option}: {error}") from None
        self._shared = SharedBackplane(self._make)
        share(self._shared)

    def fork(self) -> int:
        """Take no more hubs; return how many processes are needed for a broker."""
        self._shared.forked = True
        return int(self.url is None and self._shared.count > 0)

    def run_broker(self, channel: SupervisorChannel) -> None:
        """Be the broker, in a process of its own."""
        from rawws.backplanes.broker import keep  # noqa: PLC0415 - only hubs need it

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(keep(self._broker, channel.ready))

    @property
    def _broker(self) -> str:
        return f"{self.folder}/broker"

    def _make(self, number: int) -> Backplane:
        if self.url is not None:
            url, prefix = self.url, self.prefix
            # The first hub has the default prefix, as in a program that names its engine itself.
            if number > 1:
                # With what all engines take in a prefix; and a URL of Kafka may have it in its path.
                prefix, parts = f"{prefix}-{number}", urlsplit(url)
                if parts.scheme in {"kafka", "kafkas"} and parts.path.strip("/"):
                    url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}-{number}"))
            return backplane_of(url, prefix=prefix)
        from rawws.backplanes.broker import BrokerBackplane  # noqa: PLC0415 - only hubs need it

        return BrokerBackplane(self._broker, str(number))
