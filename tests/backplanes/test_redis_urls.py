"""URLs of one Redis, of sentinels and of clusters, and what the nodes of a cluster say of their slots."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ClusterDownError, MovedError

from rawws.backplanes.redis_faults import is_about
from rawws.backplanes.redis_slots import SLOTS, SlotTopics, key_slot, masters_of, slot_of
from rawws.backplanes.redis_urls import FixedSource, SentinelSource, cluster_of, source_of
from rawws.topics.backplane import BackplaneAway
from tests.backplanes.certificates import Certificates


async def test_one_redis_is_where_its_url_says() -> None:
    source = source_of("redis://ann:pw@host:1234/3", 5.0)
    assert isinstance(source, FixedSource)
    made: Any = (await source.find())()
    assert (made.host, made.port, made.db, made.username, source.db) == ("host", 1234, 3, "ann", 3)
    await source.check()


@pytest.mark.parametrize(
    ("url", "hosts", "db", "own", "of_sentinels"),
    [
        ("redis+sentinel://a/mymaster", [("a", 26379)], 0, (None, None), (None, None)),
        ("REDIS+sentinel://a:1,[::1]:2/mymaster/7", [("a", 1), ("::1", 2)], 7, (None, None), (None, None)),
        ("redis+sentinel://u:p%40@a,b:2/mymaster", [("a", 26379), ("b", 2)], 0, ("u", "p@"), (None, None)),
        (
            "redis+sentinel://:p@a/mymaster?sentinel_username=w&sentinel_password=%26",
            [("a", 26379)],
            0,
            (None, "p"),
            ("w", "&"),
        ),
    ],
)
def test_sentinels_and_their_master_are_where_the_url_says(
    url: str,
    hosts: list[tuple[str, int]],
    db: int,
    own: tuple[str | None, str | None],
    of_sentinels: tuple[str | None, str | None],
) -> None:
    source = source_of(url, 5.0)
    assert isinstance(source, SentinelSource)
    assert (source._name, source._sentinels, source.db) == ("mymaster", hosts, db)
    made: Any = source._make(host="h", port=1)
    sentinel: Any = source._make_sentinel(host="h", port=1)
    assert (made.username, made.password) == own
    assert (sentinel.username, sentinel.password, sentinel.db) == (*of_sentinels, 0)


async def test_a_sentinel_that_is_silent_is_named_with_that() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BackplaneAway) as caught:
            await source_of(f"redis+sentinel://{where}/mymaster", 0.2).find()
    assert str(caught.value) == f"no sentinel says where the master 'mymaster' is: {where}: no answer in time"


def test_where_tls_is_spoken_it_is_by_all(tmp_path: Path) -> None:
    ca = str(Certificates(tmp_path).ca)
    source: Any = source_of(f"rediss+sentinel://a/mymaster?ssl_ca_certs={ca}", 5.0)
    for made in (source._make(host="h", port=1), source._make_sentinel(host="h", port=1)):
        assert isinstance(made, SSLConnection)
        assert made.ca_certs == ca
    assert isinstance(cluster_of("rediss+cluster://a").connection(("h", 1)), SSLConnection)


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    cluster = cluster_of("redis+cluster://u:p@a:1,b,[::1]:3/0")
    assert cluster.nodes == [("a", 1), ("b", 6379), ("::1", 3)]
    made: Any = cluster.connection(("c", 4))
    assert type(made) is Connection
    assert (made.host, made.port, made.username, made.password) == ("c", 4, "u", "p")


@pytest.mark.parametrize(
    ("make", "url", "message"),
    [
        (
            source_of,
            "redis+sentinel://a",
            r": it names no master, as redis\+sentinel://a:26379,b:26379/mymaster does$",
        ),
        (source_of, "redis+sentinel://a/mymaster/x", "it names no master, as redis"),
        (source_of, "redis+sentinel://a,/mymaster", "a host is empty"),
        (source_of, "redis+sentinel:///mymaster", "a host is empty"),
        (source_of, "redis+sentinel://a:x/mymaster", "Port could not be cast"),
        (
            source_of,
            "redis+cluster://a",
            r"allowed are redis://, redis\+sentinel://, rediss://, rediss\+sentinel://, unix://",
        ),
        (cluster_of, "redis://a", r"allowed are redis\+cluster://, rediss\+cluster://"),
        (cluster_of, "redis+cluster://a/3", "a cluster has no database but 0"),
        (cluster_of, "redis+cluster://a?db=3", "a cluster has no database but 0"),
    ],
)
def test_what_names_nothing_is_said(make: Any, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message if "?" not in url else "url is 'redis"):
        make(url, *[5.0] * (make is source_of))


@pytest.mark.parametrize(
    ("make", "url", "name"),
    [
        (source_of, "redis://a?foo=1", "foo"),
        (source_of, "unix:///a?host=b", "host"),
        (source_of, "redis://a?sentinel_password=x", "sentinel_password"),
        (source_of, "redis+sentinel://a/mymaster?sentinel_pass=x", "sentinel_pass"),
        (cluster_of, "redis+cluster://a?foo=1", "foo"),
    ],
)
def test_an_option_that_there_is_not_is_refused_where_it_is_read(make: Any, url: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"\?\.\.\.' with '{name}', which is no option of a connection to a Redis$"):
        make(url, *[5.0] * (make is source_of))


def test_a_slot_is_that_of_the_specification() -> None:
    # "CRC16 of "123456789" is 0x31C3": Redis Cluster Specification.
    assert slot_of("123456789") == 0x31C3
    assert key_slot("rawws:{123456789}:place") == 0x31C3
    # What is quoted in a key is quoted here.
    assert slot_of("{a}") == key_slot("rawws:{%7Ba%7D}:log")
    topics = SlotTopics(frozenset({0x31C3}))
    assert "123456789" in topics
    assert "a" not in topics
    assert 7 not in topics


def test_an_answer_that_names_a_slot_is_about_the_channels_of_that_slot_and_any_other_about_all() -> None:
    moved = MovedError("12739 127.0.0.1:7001")  # 0x31C3
    assert (is_about(moved, "rawws:{123456789}"), is_about(moved, "rawws:{a}")) == (True, False)
    assert is_about(ClusterDownError("CLUSTERDOWN Hash slot not served"), "rawws:{a}")


def node(port: int, host: bytes | None = b"h") -> list[Any]:
    return [host, port, b"id", []]


def test_masters_are_found_in_what_a_node_says() -> None:
    found = [[0, 99, node(1), node(4)], [200, SLOTS - 1, node(1)], [100, 199, node(2, b""), node(3, None)]]
    masters, nodes = masters_of(found, ("asked", 9))
    assert nodes == {("h", 1), ("h", 4), ("asked", 2), ("asked", 3)}
    by_port = {each.address[1]: each for each in masters}
    assert by_port[1].slots == frozenset([*range(100), *range(200, SLOTS)])
    assert by_port[2].slots == frozenset(range(100, 200))
    for each in masters:
        assert key_slot(f"{{{each.tag}}}") in each.slots
    # It stays while its slot does.
    again, _ = masters_of([[0, 50, node(7)], [200, SLOTS - 1, node(7)]], ("asked", 9))
    assert again[0].tag == by_port[1].tag


@pytest.mark.parametrize("found", [None, 7, [7], [[1, 2]], [[0, 1, []]], [[b"x", 1, node(1)]], [[0, 1, [b"h", b"x"]]]])
def test_what_is_no_map_is_said(found: Any) -> None:
    with pytest.raises(ValueError, match="what CLUSTER SLOTS says cannot be read"):
        masters_of(found, ("asked", 9))
