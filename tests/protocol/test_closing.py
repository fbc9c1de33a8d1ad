"""The payload of Close frames (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import Close, LocalProtocolError, RemoteProtocolError
from rawws.protocol.closing import is_sendable, parse_close, serialize_close

# RFC 6455 section 7.4.1 defines eight of them for the wire; the IANA registry adds 1012, 1013 and 1014.
DEFINED = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
LEGAL = DEFINED | set(range(3000, 5000))


def test_every_code_of_two_octets_is_judged_as_section_7_4_says() -> None:
    assert {code for code in range(65536) if is_sendable(code)} == LEGAL


def test_every_legal_code_is_received_and_sent_and_no_other() -> None:
    for code in range(65536):
        payload = code.to_bytes(2, "big") + b"why"
        said = f"close code is {code}, allowed are 1000-1003, 1007-1014 and 3000-4999"
        try:
            received = parse_close(payload)
        except RemoteProtocolError as error:
            verdict: object = (error.close_code, error.reason)
        else:
            verdict = received
        assert verdict == (Close(code, "why") if code in LEGAL else (1002, said))
        try:
            written = serialize_close(code, "why")
        except LocalProtocolError as error:
            verdict = str(error)
        else:
            verdict = written
        assert verdict == (payload if code in LEGAL else said)


@pytest.mark.parametrize("code", [-1, 65536, 1 << 64])
def test_a_code_that_two_octets_cannot_hold_is_not_sent(code: int) -> None:
    with pytest.raises(LocalProtocolError, match="allowed are 1000-1003"):
        serialize_close(code, "")


def test_no_payload_means_1005() -> None:
    assert parse_close(b"") == Close(1005, "")
    assert serialize_close(1005, "") == b""


def test_1005_with_a_reason_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="close code is 1005"):
        serialize_close(1005, "why")


def test_a_payload_of_one_octet_fails_with_1002() -> None:
    with pytest.raises(RemoteProtocolError, match="1 byte") as caught:
        parse_close(b"\x03")
    assert caught.value.close_code == 1002


@pytest.mark.parametrize("reason", [b"\xff", b"\xce\xba\xe1\xbd", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"])
def test_a_reason_that_is_not_utf_8_fails_with_1007(reason: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not valid UTF-8") as caught:
        parse_close(b"\x03\xe8" + reason)
    assert caught.value.close_code == 1007


def test_a_bad_code_is_judged_before_a_bad_reason() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_close(b"\x03\xed\xff")
    assert caught.value.close_code == 1002


@pytest.mark.parametrize("reason", ["x" * 123, "\u00e9" * 61 + "x", "\u20ac" * 41])
def test_a_reason_of_123_bytes_in_utf_8_is_sent(reason: str) -> None:
    assert parse_close(serialize_close(1000, reason)) == Close(1000, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "\u00e9" * 62, "\u20ac" * 41 + "x"])
def test_a_reason_of_124_bytes_in_utf_8_is_not_sent(reason: str) -> None:
    with pytest.raises(LocalProtocolError, match="close reason is 124 bytes in UTF-8, limit 123"):
        serialize_close(1000, reason)


def test_a_reason_that_utf_8_cannot_hold_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="close reason"):
        serialize_close(1000, "\ud800")


@pytest.mark.parametrize("code", ["1000", 1000.0, None])
def test_a_code_that_is_no_int_is_a_type_error(code: object) -> None:
    with pytest.raises(TypeError, match=f"close code is {type(code).__name__}, allowed is int"):
        serialize_close(code, "")  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", [b"why", 1, None])
def test_a_reason_that_is_no_str_is_a_type_error(reason: object) -> None:
    with pytest.raises(TypeError, match=f"close reason is {type(reason).__name__}, allowed is str"):
        serialize_close(1000, reason)  # type: ignore[arg-type]


@given(code=st.sampled_from(sorted(LEGAL)), reason=st.text(max_size=30))
def test_what_is_sent_is_received(code: int, reason: str) -> None:
    assert parse_close(serialize_close(code, reason)) == Close(code, reason)
