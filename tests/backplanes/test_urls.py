"""`Hub(backplane=URL)`: the scheme names the engine, and a mistake is told without the password."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawws
from rawws.topics.backplane_urls import SCHEMES, backplane_class, backplane_of
from tests.backplanes.engines import SERVERS, ServerEngine
from tests.backplanes.handlers import Reader
from tests.server.peers import eventually

PASSWORD = "open-sesame"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerEngine]:
    made = SERVERS[request.param](tmp_path)
    yield made
    made.end()


async def test_hubs_with_the_same_url_are_joined(server: ServerEngine) -> None:
    async with rawws.Hub(backplane=server.url) as one, rawws.Hub(backplane=server.url) as two:
        reader = Reader()
        await two.subscribe(reader, "news")
        assert (await one.publish("news", "hello")).accepted
        await eventually(lambda: reader.got == ["hello"])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_a_class_that_takes_the_options_of_all(scheme: str) -> None:
    made = backplane_class(f"{scheme.upper()}://127.0.0.1")
    assert made.__name__.endswith("Backplane")


def test_options_go_to_the_class() -> None:
    made = backplane_of("redis://127.0.0.1", lease=3, prefix="chat")
    assert (made.lease, made.prefix) == (3, "chat")  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", [f"http://ali:{PASSWORD}@host", f"{PASSWORD}@host", "", "redis:", "://"])
def test_what_names_no_engine_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"the URL of the backplane .*, allowed are redis://, .*") as raised:
        rawws.Hub(backplane=url)
    assert PASSWORD not in str(raised.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(ImportError, match=r"pip install 'rawws\[redis\]'"):
        rawws.Hub(backplane="redis://127.0.0.1")
