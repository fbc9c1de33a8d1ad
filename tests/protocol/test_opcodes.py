"""The numbers of the wire (RFC 6455 sections 5.2 and 7.4, and the IANA registry)."""

from __future__ import annotations

import re
from pathlib import Path

from rawws.protocol import opcodes, phases
from rawws.protocol.closing import is_sendable
from rawws.protocol.opcodes import CloseCode, Opcode
from rawws.protocol.phases import Phase


def test_opcodes_have_the_numbers_of_section_5_2() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0x0,
        "TEXT": 0x1,
        "BINARY": 0x2,
        "CLOSE": 0x8,
        "PING": 0x9,
        "PONG": 0xA,
    }


def test_close_codes_have_the_numbers_of_section_7_4_and_the_registry() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


def test_the_close_codes_that_never_stand_in_a_frame_cannot_be_sent() -> None:
    assert {code.name for code in CloseCode if not is_sendable(code)} == {
        "NO_STATUS_RCVD",
        "ABNORMAL_CLOSURE",
        "TLS_HANDSHAKE",
    }


def test_the_numbers_of_the_compiled_twin_are_those_of_the_interpreted_one() -> None:
    text = (Path(opcodes.__file__).parent / "numbers.pxd").read_text(encoding="utf-8")
    numbers = {name: int(value, 0) for name, value in re.findall(r"^    (\w+) = (\w+)$", text, re.MULTILINE)}
    named = {name: value for module in (opcodes, phases) for name, value in vars(module).items() if type(value) is int}
    assert len(numbers) == text.count(" = ")
    assert numbers == named
    assert numbers.items() >= {kind.name: kind.value for kind in (*Opcode, *Phase)}.items()
