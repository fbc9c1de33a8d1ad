"""HTTP/2 with the programs of nghttp2: nghttp and h2load."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.processes import find_program
from tests.server.http2_site import LARGE, Keys, address, make_keys, options, run_client, site
from tests.server.peers import eventually, serve

NGHTTP2: Final = "apt-get install nghttp2-client"


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys()


# nghttp


async def test_nghttp_gets_many_and_a_large_one_on_one_connection(keys: Keys) -> None:
    peers: set[Any] = set()
    async with serve(site(peers), **options(keys)) as server:
        at = address(server)
        paths = [f"{at}/item/{number}" for number in range(50)]
        # Windows of 16 KiB, which are soon full.
        output = await run_client(find_program("nghttp", NGHTTP2), "-w14", "-W14", *paths, f"{at}/large")
        assert len(peers) == 1
        assert server.stats().accepted == 1
        # It prints what comes as it comes, each answer between the pieces of others.
        assert Counter(output) == Counter(LARGE + b"".join(b"%d" % number for number in range(50)))


async def test_nghttp_uploads_with_trailers_and_waits_for_leave(keys: Keys, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(LARGE)
    async with serve(site(set()), **options(keys)) as server:
        program = find_program("nghttp", NGHTTP2)
        more = ("--trailer", "checksum: 1", "--expect-continue")
        assert await run_client(program, "-d", body, *more, f"{address(server)}/echo") == LARGE


async def test_nghttp_begins_with_http2_where_there_is_no_tls() -> None:
    async with serve(site(set()), http2=True) as server:
        output = await run_client(find_program("nghttp", NGHTTP2), "-nv", f"{address(server, 'http')}/item/7")
        assert re.search(r"recv .*:status: 200", output.decode()), output
        assert server.stats().accepted == 1


# h2load


async def test_h2load_has_two_thousand_answers_and_no_error(keys: Keys) -> None:
    peers: set[Any] = set()
    async with serve(site(peers), **options(keys)) as server:
        load = ("-n", "2000", "-c", "4", "-m", "32")
        output = (await run_client(find_program("h2load", NGHTTP2), *load, f"{address(server)}/item/7")).decode()
        assert "Application protocol: h2" in output
        assert "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout" in output
        assert "status codes: 2000 2xx" in output
        assert len(peers) == 4
        await eventually(lambda: server.stats().sockets == 0)
