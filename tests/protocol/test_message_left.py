"""What is left of a message whose rest does not come: nothing, even where something holds the connection."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from rawws.protocol.connection import Connection, Role


@pytest.mark.parametrize("first", [0x01, 0x02, 0x82], ids=["a text fragment", "a binary fragment", "half a frame"])
def test_the_end_of_tcp_lets_go_of_an_unfinished_message(first: int) -> None:
    size = 1 << 20
    tracemalloc.start()
    try:
        connection = Connection(Role.SERVER)
        connection.receive(bytes([first, 0xFF]) + struct.pack("!Q", size) + bytes(4) + bytes(size - 1))
        assert connection.next_event() is None
        connection.keep_buffer()
        assert tracemalloc.get_traced_memory()[0] >= size - 1
        connection.receive_eof()
        assert tracemalloc.get_traced_memory()[0] < size // 8
    finally:
        tracemalloc.stop()
