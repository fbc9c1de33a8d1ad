"""Speedups: what isal compresses, every inflater of zlib reads, each message alone, and it is as small."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rawws import protocol
from rawws.protocol import speedups
from rawws.protocol.deflate import STEP, Deflater

WORDS = " ".join("the quick brown fox jumps over lazy dogs while an event loop runs".split()).encode()


def messages(seed: int) -> list[bytes]:
    chance = random.Random(seed)
    kinds: list[Callable[[int], bytes]] = [
        chance.randbytes,
        lambda size: bytes(chance.choices(b"{}:, abcdef0123456789", k=size)),
        lambda size: (WORDS * (size // len(WORDS) + 1))[:size],
        bytes,
    ]
    sizes = [1, 2, 100, 1024, 5000, 32768, 32769, 70_000, 3 * STEP]
    return [chance.choice(kinds)(chance.choice(sizes)) for _ in range(40)]


@pytest.mark.usefixtures("compresses")
@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_a_peer_with_this_window_reads_each_message_whatever_came_before(level: int, bits: int) -> None:
    shared = Deflater(bits, takeover=False, level=level, memory_level=8)
    for message in messages(bits):
        payload = shared.compress(message)
        assert zlib.decompressobj(-bits).decompress(payload + b"\x00\x00\xff\xff") == message
        # What others sent shows in nothing, not even in a size.
        assert payload == Deflater(bits, takeover=False, level=level, memory_level=8).compress(message)


def test_isal_compresses_at_levels_1_to_3_in_the_whole_window_where_the_compressor_is_shared(compresses: str) -> None:
    data = random.Random(1).randbytes(20_000).hex().encode()
    for level, takeover, bits in itertools.product(range(10), (False, True), (14, 15)):
        stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 8)
        by_zlib = (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
        payload = Deflater(bits, takeover, level, 8).compress(data)
        fast = compresses == "isal" and level in {1, 2, 3} and not takeover and bits == 15
        assert (payload != by_zlib) is fast
        assert len(payload) < 1.05 * len(by_zlib)


def test_what_runs_has_a_name(compresses: str) -> None:
    name, version = speedups.running_deflate().split()
    assert name == compresses
    assert version[0].isdigit()


def test_without_the_extra_it_is_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = importlib.util.spec_from_file_location("alone", Path(protocol.__path__[0]) / "speedups.py")
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone.running_deflate() == f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    assert type(alone.fast_compressor(1, 15, 8)) is type(zlib.compressobj())
