"""Java's own HTTP client against our HTTP/2: requests and event streams there, WebSockets on HTTP/1.1."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from tests.processes import find_program
from tests.server.http2_site import LARGE, address, make_keys, options, run_client, site
from tests.server.peers import eventually, serve

PROGRAM: Final = Path(__file__).with_name("HttpClient.java")


def test_java_has_requests_and_streams_on_http2_and_websockets_on_http1(tmp_path: Path) -> None:
    asyncio.run(talk(tmp_path))


async def talk(folder: Path) -> None:
    """Serve the site, and run the program of the client."""
    keys = make_keys()
    authority = folder / "authority.pem"
    authority.write_bytes(keys.authority)
    peers: set[Any] = set()
    async with serve(site(peers), **options(keys)) as server:
        # One file is compiled as it is run.
        java = find_program("java", "apt-get install default-jdk-headless")
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        output = await run_client(java, *quick, PROGRAM, address(server), authority)
        assert output.decode().split(os.linesep)[:-1] == [
            "100 answers by HTTP_2",
            f"{len(LARGE)} octets there and back by HTTP_2",
            "data: 5 by HTTP_2",
            "chat.v1: Grüße",
            "closed 4000 enough",
        ]
        # WebSockets of Java have connections of their own.
        assert len(peers) == 2
        await eventually(lambda: server.stats().closes == {4000: 1})
