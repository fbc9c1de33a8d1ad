"""RFC 7541: its own examples verbatim, every rule for decoders, every limit, and the `hpack` package as the oracle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import hpack as oracle
import pytest
from hpack import huffman_constants
from hpack.huffman import HuffmanEncoder
from hpack.huffman_table import decode_huffman as oracle_decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from fuzz.twins import INTERPRETED
from rawws.errors import Http2Error
from rawws.protocol.hpack import (
    DEFAULT_TABLE_SIZE,
    Field,
    HpackDecoder,
    HpackEncoder,
    write_integer,
)
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.huffman import decode_huffman, encode_huffman, huffman_size
from tests.protocol import strategies

LARGE = 1 << 20
# What the compiled twin has as numbers and tables of C.
ENTRY_OVERHEAD = 32
STATIC_TABLE = INTERPRETED.load("rawws.protocol.hpack").STATIC_TABLE
CODES = INTERPRETED.load("rawws.protocol.huffman").CODES
LENGTHS = INTERPRETED.load("rawws.protocol.huffman").LENGTHS


def decoded(block: str | bytes, decoder: HpackDecoder | None = None) -> list[Field]:
    octets = bytes.fromhex(block) if isinstance(block, str) else block
    return (HpackDecoder(LARGE) if decoder is None else decoder).decode(octets)


def refusal(block: str | bytes, decoder: HpackDecoder | None = None) -> str:
    """The reason for which a block is refused."""
    with pytest.raises(Http2Error) as caught:
        decoded(block, decoder)
    assert caught.value.error_code == ErrorCode.COMPRESSION_ERROR
    return caught.value.reason


def entries(size: int, table: str) -> list[Field]:
    """A table as appendix C writes it, and its size as it says."""
    found = [(name, value) for name, _, value in (line.strip().partition(": ") for line in table.strip().splitlines())]
    assert sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in found) == size
    return found


class Example(NamedTuple):
    """A block of appendix C.3 to C.6, its fields, and the table behind it."""

    block: str
    fields: list[Field]
    table: list[Field]


REQUESTS = [
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
]
REQUEST_TABLES = [
    [(":authority", "www.example.com")],
    [("cache-control", "no-cache"), (":authority", "www.example.com")],
    [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
]
DATE_21, DATE_22 = "Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT"
COOKIE = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
RESPONSES = [
    [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", DATE_21),
        ("location", "https://www.example.com"),
    ],
    [(":status", "307"), ("cache-control", "private"), ("date", DATE_21), ("location", "https://www.example.com")],
    [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", DATE_22),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", COOKIE),
    ],
]
RESPONSE_TABLES = [
    list(reversed(RESPONSES[0])),
    [(":status", "307"), *reversed(RESPONSES[0][1:])],
    [("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", DATE_22)],
]
TABLE_SIZES = {"requests": [57, 110, 164], "responses": [222, 222, 215]}

C3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C4 = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
C5 = [
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970"
        "7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b"
        "2076657273696f6e3d31"
    ),
]
C6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab"
        "77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
]


# -- appendix A, B and C


def test_the_static_table_is_that_of_appendix_a() -> None:
    theirs = [(name.decode(), value.decode()) for name, value in oracle.table.HeaderTable.STATIC_TABLE]
    assert list(STATIC_TABLE) == theirs
    assert len(STATIC_TABLE) == 61


def test_the_huffman_code_is_that_of_appendix_b() -> None:
    assert list(huffman_constants.REQUEST_CODES) == CODES
    assert list(huffman_constants.REQUEST_CODES_LENGTH) == LENGTHS
    # Its first and its last lines, and EOS.
    assert (CODES[0], LENGTHS[0]) == (0x1FF8, 13)
    assert (CODES[255], LENGTHS[255]) == (0x3FFFFEE, 26)
    assert (CODES[256], LENGTHS[256]) == (0x3FFFFFFF, 30)


@pytest.mark.parametrize(
    ("value", "prefix", "octets"),
    [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")],
    ids=["C.1.1", "C.1.2", "C.1.3"],
)
def test_integers_of_appendix_c_1(value: int, prefix: int, octets: str) -> None:
    block = bytearray()
    write_integer(block, 0, prefix, value)
    assert block.hex() == octets


def test_an_integer_of_appendix_c_1_is_read() -> None:
    # As the size of the table, which has a prefix of five bits.
    decoder = HpackDecoder(LARGE)
    decoder.decode(bytes.fromhex("3f9a0a"))
    assert decoder.table.max_size == 1337


def test_a_literal_with_indexing_of_appendix_c_2_1() -> None:
    decoder = HpackDecoder(LARGE)
    assert decoded("400a637573746f6d2d6b65790d637573746f6d2d686561646572", decoder) == [("custom-key", "custom-header")]
    assert list(decoder.table.entries) == entries(55, "custom-key: custom-header")
    assert decoder.table.size == 55


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("040c2f73616d706c652f70617468", (":path", "/sample/path")),
        ("100870617373776f726406736563726574", ("password", "secret")),
        ("82", (":method", "GET")),
    ],
    ids=["C.2.2", "C.2.3", "C.2.4"],
)
def test_what_enters_no_table_of_appendix_c_2(block: str, field: Field) -> None:
    decoder = HpackDecoder(LARGE)
    assert decoded(block, decoder) == [field]
    assert decoder.table.size == 0


@pytest.mark.parametrize(
    ("blocks", "kind", "max_size"),
    [(C3, "requests", 4096), (C4, "requests", 4096), (C5, "responses", 256), (C6, "responses", 256)],
    ids=["C.3", "C.4", "C.5", "C.6"],
)
def test_the_blocks_of_appendix_c_3_to_c_6(blocks: list[str], kind: str, max_size: int) -> None:
    decoder = HpackDecoder(LARGE, max_size)
    fields, tables = (REQUESTS, REQUEST_TABLES) if kind == "requests" else (RESPONSES, RESPONSE_TABLES)
    for number, block in enumerate(blocks):
        assert decoded(block, decoder) == fields[number]
        assert list(decoder.table.entries) == tables[number]
        assert decoder.table.size == TABLE_SIZES[kind][number]


def test_the_encoder_writes_the_requests_of_appendix_c_4() -> None:
    encoder = HpackEncoder()
    assert [encoder.encode(fields).hex() for fields in REQUESTS] == C4


# -- what a decoder refuses


@pytest.mark.parametrize("block", ["80", "ff0080", "c0", "be", "7f80ffff7f0161", "ff80ffff7f"])
def test_an_index_that_nothing_has_is_refused(block: str) -> None:
    assert "index of a header field is " in refusal(block) or "ends" in refusal(block)


def test_the_newest_and_the_oldest_entry_have_the_lowest_and_the_highest_index() -> None:
    decoder = HpackDecoder(LARGE)
    decoded("400161016240016301 64".replace(" ", ""), decoder)
    assert decoded("be", decoder) == [("c", "d")]
    assert decoded("bf", decoder) == [("a", "b")]
    assert refusal("c0", decoder) == "the index of a header field is 64, allowed is 1..63"


@pytest.mark.parametrize("block", ["ffffffffff7f", "3fffffffff7f", "7fffffffff7f", "0fffffffff7f", "007fffffffff7f"])
def test_an_integer_of_too_many_octets_is_refused(block: str) -> None:
    assert refusal(block) == "an integer has over 4 octets behind its prefix"


@pytest.mark.parametrize("block", ["ff", "ff80", "3f", "0f", "007f", "00ff80"])
def test_a_block_that_ends_in_an_integer_is_refused(block: str) -> None:
    assert refusal(block) == "a header block ends in an integer"


@pytest.mark.parametrize("block", ["00", "40", "10", "000161", "41", "04"])
def test_a_block_that_ends_before_a_string_is_refused(block: str) -> None:
    assert refusal(block) == "a header block ends before a string"


@pytest.mark.parametrize("block", ["000261", "00016102 62".replace(" ", ""), "0085"])
def test_a_string_that_is_longer_than_its_block_is_refused(block: str) -> None:
    assert "bytes has" in refusal(block)


def test_a_string_that_has_the_eos_symbol_is_refused() -> None:
    assert refusal("0084fffffffc") == "a Huffman-coded string has the EOS symbol"
    assert refusal("0084ffffffff") == "a Huffman-coded string has the EOS symbol"


@pytest.mark.parametrize("octets", ["ff", "1fff", "ffff", "ffffff"])
def test_a_padding_of_over_seven_bits_is_refused(octets: str) -> None:
    assert "no padding of ones" in refusal(f"00{0x80 | len(octets) // 2:02x}{octets}")


@pytest.mark.parametrize("octets", ["18", "00", "1e", "fffe"])
def test_a_padding_that_is_not_all_ones_is_refused(octets: str) -> None:
    assert "no padding of ones" in refusal(f"00{0x80 | len(octets) // 2:02x}{octets}")


def test_a_padding_of_up_to_seven_bits_is_taken() -> None:
    for text in ("", "a", "aa", "aaa", "aaaa", "aaaaa", "aaaaaa", "aaaaaaa", "aaaaaaaa", "\x00", "\xff", "\n"):
        octets = text.encode("latin-1")
        code = encode_huffman(octets)
        assert decode_huffman(b"?" + code + b"?", 1, 1 + len(code)) == octets


# -- the table


def test_a_block_may_begin_with_updates_of_the_table_size() -> None:
    decoder = HpackDecoder(LARGE)
    decoded("4001610162", decoder)
    assert decoded("203fe11f82", decoder) == [(":method", "GET")]
    assert decoder.table.size == 0
    assert decoder.table.max_size == 4096


def test_an_update_of_the_table_size_behind_a_field_is_refused() -> None:
    assert refusal("8220") == "an update of the table's size follows a header field"


def test_an_update_over_the_limit_is_refused() -> None:
    assert refusal("3fe21f") == "the table is to have 4097 bytes, the limit is 4096"


def test_a_smaller_table_evicts_its_oldest_entries() -> None:
    decoder = HpackDecoder(LARGE)
    decoded("4001610162400163016440016501 66".replace(" ", ""), decoder)
    assert decoder.table.size == 3 * 34
    decoded(bytes([0x3F, 70 - 31]), decoder)
    assert list(decoder.table.entries) == [("e", "f"), ("c", "d")]


def test_an_entry_that_is_larger_than_the_table_empties_it_and_is_a_field() -> None:
    decoder = HpackDecoder(LARGE, 40)
    decoded("4001610162", decoder)
    large = b"\x40\x01a\x14" + b"b" * 20
    assert decoded(large, decoder) == [("a", "b" * 20)]
    assert list(decoder.table.entries) == []


def test_a_new_entry_may_have_the_name_of_one_that_it_evicts() -> None:
    decoder = HpackDecoder(LARGE, 40)
    decoded("4001610162", decoder)
    assert decoded("7e0163", decoder) == [("a", "c")]
    assert list(decoder.table.entries) == [("a", "c")]


def test_entries_may_be_there_twice() -> None:
    decoder = HpackDecoder(LARGE)
    decoded("40016101624001610162", decoder)
    assert list(decoder.table.entries) == [("a", "b"), ("a", "b")]


def test_fields_keep_their_order() -> None:
    fields = [("b", "1"), ("a", "2"), ("b", "1"), ("a", "1")]
    assert decoded(HpackEncoder().encode(fields)) == fields


def test_a_lower_limit_that_was_acknowledged_must_be_followed() -> None:
    decoder = HpackDecoder(LARGE)
    decoder.set_limit(100)
    assert "begins without the update of the table's size, of 100 bytes or less" in refusal("82", decoder)
    decoder = HpackDecoder(LARGE)
    decoder.set_limit(100)
    assert decoded("3f45 82".replace(" ", ""), decoder) == [(":method", "GET")]
    assert decoder.table.max_size == 100
    decoder.set_limit(200)
    assert decoded("82", decoder) == [(":method", "GET")]


def test_an_empty_block_behind_a_lower_limit_is_refused() -> None:
    decoder = HpackDecoder(LARGE)
    decoder.set_limit(0)
    assert "begins without the update" in refusal("", decoder)


# -- limits


def test_fields_over_the_limit_are_counted_and_not_kept() -> None:
    decoder = HpackDecoder(100)
    assert decoded("400161016282828286", decoder) == [("a", "b"), (":method", "GET")]
    assert decoder.list_size == 34 + 3 * 42 + 43
    # The table is what the peer's encoder has.
    assert decoded("be", decoder) == [("a", "b")]
    assert decoder.list_size == 34


def test_a_bomb_ends_at_four_times_what_a_list_may_have() -> None:
    decoder = HpackDecoder(16384)
    decoded(b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000, decoder)
    assert len(decoded(b"\xbe" * 16, decoder)) == 4
    assert decoder.list_size == 16 * (4001 + 32)
    with pytest.raises(Http2Error) as refused:
        decoder.decode(b"\xbe" * 17)
    assert refused.value.error_code == ErrorCode.ENHANCE_YOUR_CALM
    assert refused.value.reason == "a header block has over 65536 bytes of fields in 17"


# -- the encoder


def test_credentials_and_short_cookies_are_never_indexed() -> None:
    encoder = HpackEncoder()
    for name, value in (("authorization", "Basic Zm9v"), ("proxy-authorization", "x"), ("set-cookie", "a=b" * 20)):
        first = encoder.encode([(name, value)])
        assert first[0] & 0xF0 == 0x10
        assert encoder.encode([(name, value)]) == first
    assert encoder.encode([("cookie", "a=b")])[0] & 0xF0 == 0x10
    assert encoder.table.size == 0
    assert encoder.encode([("cookie", "a=b" * 20)])[0] & 0xC0 == 0x40
    assert encoder.encode([("cookie", "a=b" * 20)]) == b"\xbe"


def test_what_is_another_one_each_time_is_not_indexed() -> None:
    encoder = HpackEncoder()
    assert encoder.encode([("date", DATE_21)])[0] & 0xF0 == 0x00
    assert encoder.encode([(":path", "/chat")])[0] & 0xF0 == 0x00
    assert encoder.table.size == 0


def test_what_is_larger_than_the_table_is_not_indexed() -> None:
    encoder = HpackEncoder(50)
    assert decoded(encoder.encode([("name", "v" * 15)]), HpackDecoder(LARGE)) == [("name", "v" * 15)]
    assert encoder.table.size == 0


def test_a_name_in_the_table_is_an_index_and_the_newest_counts() -> None:
    encoder, decoder = HpackEncoder(90), HpackDecoder(LARGE)
    for fields in ([("xx", "1")], [("xx", "2")], [("yy", "1")], [("xx", "2")], [("xx", "3"), ("xx", "1")]):
        assert decoder.decode(encoder.encode(fields)) == fields
        assert list(decoder.table.entries) == list(encoder.table.entries)
    # One byte for an index that has the name, two for the value.
    assert len(encoder.encode([("xx", "9")])) == 3


def test_a_smaller_table_of_the_encoder_is_announced_first() -> None:
    encoder, decoder = HpackEncoder(0), HpackDecoder(LARGE)
    block = encoder.encode([("a", "b")])
    assert block[0] == 0x20
    assert decoder.decode(block) == [("a", "b")]
    assert encoder.encode([("a", "b")])[0] == 0x00


@pytest.mark.parametrize(
    ("limits", "updates"),
    [([100], [100]), ([4096], []), ([8192], []), ([100, 4096], [100, 4096]), ([100, 50, 200], [50, 200])],
)
def test_changes_of_the_limit_are_announced_in_at_most_two_updates(limits: list[int], updates: list[int]) -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder(LARGE)
    decoder.decode(encoder.encode([("aa", "b" * 20), ("cc", "d" * 20)]))
    for limit in limits:
        encoder.set_limit(limit)
    block = encoder.encode([])
    expected = bytearray()
    for update in updates:
        write_integer(expected, 0x20, 5, update)
    assert block == expected
    decoder.decode(block)
    assert list(encoder.table.entries) == list(decoder.table.entries)
    fields = [("aa", "b" * 20), ("cc", "d" * 20)]
    assert decoder.decode(encoder.encode(fields)) == fields


def test_a_larger_table_is_used_once_the_peer_allows_it() -> None:
    encoder = HpackEncoder(8192)
    assert encoder.table.max_size == 4096
    encoder.set_limit(65536)
    assert encoder.table.max_size == 8192
    assert encoder.encode([]).hex() == "3fe13f"


# -- against the hpack package

names = st.sampled_from(["a", "b", "x-long-name", ":path", "cookie", "date", "authorization", ":status", "server"])
values = st.one_of(
    st.sampled_from(["", "a", "200", "/", "GET", "x" * 30, "y" * 2000]),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=30),
)
blocks_of_fields = st.lists(st.lists(st.tuples(names | values, values), max_size=8), max_size=8)
sizes = st.sampled_from([0, 33, 34, 100, 200, 4096])


def as_text(fields: Iterable[Any]) -> list[Field]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def as_octets(fields: Sequence[Field]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def make_oracle() -> oracle.Decoder:
    decoder = oracle.Decoder(max_header_list_size=1 << 24)
    decoder.max_allowed_table_size = DEFAULT_TABLE_SIZE
    return decoder


@strategies.examples(300)
@given(lists=blocks_of_fields, table_size=sizes, changes=st.lists(sizes, max_size=8))
def test_what_we_encode_both_decode(lists: list[list[Field]], table_size: int, changes: list[int]) -> None:
    encoder, decoder, theirs = HpackEncoder(table_size), HpackDecoder(1 << 24), make_oracle()
    for number, fields in enumerate(lists):
        if number < len(changes):
            encoder.set_limit(changes[number])
            decoder.set_limit(changes[number])
            theirs.max_allowed_table_size = changes[number]
        block = encoder.encode(fields)
        assert decoder.decode(block) == fields
        assert as_text(theirs.decode(block, raw=True)) == fields
        assert list(decoder.table.entries) == list(encoder.table.entries)
        assert decoder.table.size == encoder.table.size <= encoder.table.max_size


@strategies.examples(300)
@given(lists=blocks_of_fields, sizes=st.lists(sizes, max_size=8), huffman=st.booleans())
def test_what_they_encode_we_decode(lists: list[list[Field]], sizes: list[int], huffman: bool) -> None:
    encoder, decoder = oracle.Encoder(), HpackDecoder(1 << 24)
    for number, fields in enumerate(lists):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert decoder.decode(encoder.encode(as_octets(fields), huffman=huffman)) == fields


@strategies.examples(500)
@given(
    blocks=st.lists(
        st.lists(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from([bytes([octet]) for octet in (0x82, 0xBE, 0xBF, 0xC0, 0x20, 0x21, 0x3F, 0x40, 0x10)]),
                st.builds(lambda text: bytes([0x80 | len(text)]) + text, st.binary(max_size=8)),
                st.builds(lambda text: bytes([len(text)]) + text, st.binary(max_size=8)),
            ),
            max_size=6,
        ).map(b"".join),
        max_size=4,
    )
)
def test_any_octets_are_fields_or_an_error_for_both(blocks: list[bytes]) -> None:
    decoder, theirs = HpackDecoder(1 << 24), make_oracle()
    for block in blocks:
        try:
            expected: list[Field] | None = as_text(theirs.decode(block, raw=True))
        except oracle.HPACKError:
            expected = None
        try:
            found: list[Field] | None = decoder.decode(block)
        except Http2Error:
            found = None
        # An integer of five octets or more is no error there, as long as what it stands for is none.
        if found != expected:
            assert found is None
            assert b"\x80\x80\x80\x80" in block.replace(b"\xff", b"\x80") or expected is None
        if found is None or expected is None:
            return


@given(octets=st.binary(max_size=200))
def test_huffman_codes_are_those_of_the_oracle(octets: bytes) -> None:
    encoder = HuffmanEncoder(huffman_constants.REQUEST_CODES, huffman_constants.REQUEST_CODES_LENGTH)
    code = encode_huffman(octets)
    assert code == encoder.encode(octets)
    assert len(code) == huffman_size(octets)
    assert decode_huffman(code, 0, len(code)) == octets


@strategies.examples(500)
@given(code=st.binary(max_size=20))
def test_any_octets_are_a_huffman_code_or_none_for_both(code: bytes) -> None:
    try:
        expected: bytes | None = oracle_decode_huffman(code)
    except oracle.HPACKError:
        expected = None
    try:
        found: bytes | None = decode_huffman(code, 0, len(code))
    except Http2Error:
        found = None
    assert found == expected
