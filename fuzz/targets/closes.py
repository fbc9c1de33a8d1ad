"""The payload of a Close frame.

Invariant: any payload gives a code that may be sent and a reason, and is what those two are written as; or it raises
RemoteProtocolError with close code 1002, or 1007 where the reason is not UTF-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.target import Target
from rawws.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# RFC 6455 7.4 and the IANA registry.
MAY_BE_SENT = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads a payload."""
    closing = twin.load("rawws.protocol.closing")

    def check(data: bytes) -> object:
        code = int.from_bytes(data[:2], "big")
        try:
            close = closing.parse_close(data)
        except RemoteProtocolError as error:
            wrong = len(data) == 1 or code not in MAY_BE_SENT
            assert error.close_code == (1002 if wrong else 1007), error
            if not wrong:
                assert "\ufffd" in data[2:].decode("utf-8", "replace"), data
            return error.close_code, len(data) == 1
        if not data:
            assert close == (1005, "")
            return 1005
        assert close == (code, data[2:].decode())
        assert code in MAY_BE_SENT
        try:
            assert closing.serialize_close(*close) == data
        except LocalProtocolError:
            assert len(data) > 125, data
            return "long"
        return code // 1000, code % 1000 > 2, close.reason.isascii()

    return check


REASONS = [b"", b"bye", b"*" * 123, b"*" * 124, "Grüße €😀".encode(), b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\0"]
CODES = [0, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535]
WORDS = [code.to_bytes(2, "big") for code in CODES] + [reason for reason in REASONS if reason]
SEEDS = [b"", b"\x03", *(code.to_bytes(2, "big") + reason for code in CODES for reason in REASONS[:1])]
SEEDS += [b"\x03\xe8" + reason for reason in REASONS]
TARGET = Target(make, SEEDS, WORDS, max_length=130)
