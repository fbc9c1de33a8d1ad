"""HPACK: header fields to a compressed block and back (RFC 7541).

Fields are pairs of str whose characters are octets, as in `Headers`. Laws:
1. A block is decoded to its end, whatever it holds, so that the table is the one that the peer's encoder has; or the
   connection ends, for then no later block means anything.
2. What is kept is bounded while it is decoded: the table by its size, the fields by `max_list_size`, integers by their
   octets, strings by the block. So no block is a bomb, though a field of 4 KiB may be one octet in it.
3. What should not be guessed by its length (credentials, short cookies) is in no table (section 7.1.3).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from rawws.errors import Http2Error

from .http2_codes import ErrorCode
from .huffman import decode_huffman, encode_huffman, huffman_size

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEFAULT_TABLE_SIZE", "Field", "HpackDecoder", "HpackEncoder"]

Field: TypeAlias = tuple[str, str]

# RFC 9113 6.5.2: "The initial value is 4,096 octets." As entries of Python it is some 25 KB, if each is as small as can
# be.
DEFAULT_TABLE_SIZE = 4096
# 4.1: "The size of an entry is the sum of its name's length in octets [...], its value's length in octets [...],
# and 32."
ENTRY_OVERHEAD = 32
# An integer may have so many octets behind its prefix: 28 bits. What is counted here is below that in any case.
MAX_INTEGER_OCTETS = 4
# Octets of at least 5 bits each (appendix B), in a block of twice as many as the list may have, are 3.2 times as many:
# what is more refers to a table again and again.
BOMB = 4

# Appendix A.
STATIC_TABLE: Final[tuple[Field, ...]] = (
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
)  # fmt: skip
STATIC_LENGTH = len(STATIC_TABLE)
STATIC_FIELDS: Final = {field: index for index, field in enumerate(STATIC_TABLE, 1)}
STATIC_NAMES: Final = {name: index for index, (name, _) in reversed([*enumerate(STATIC_TABLE, 1)])}

# Section 7.1.3: "An encoder might also choose not to index values for header fields that are considered to be highly
# valuable or sensitive to recovery, such as the Cookie or Authorization header fields." A long cookie is hard to guess,
# and costs most if it is sent each time; nghttp2 and Go take this length, too.
NEVER_INDEXED: Final = frozenset(("authorization", "proxy-authorization", "set-cookie"))
SHORT_COOKIE = 20
# What is another one each time would only push out of the table what is not.
NOT_INDEXED: Final = frozenset((
    ":path", "age", "content-length", "content-range", "date", "etag", "expires", "if-modified-since", "if-none-match",
    "last-modified", "location", "retry-after",
))  # fmt: skip


class DynamicTable:
    """The entries of section 2.3.2, the newest first, and their size, which is never over `max_size`."""

    __slots__ = ("entries", "max_size", "size")

    def __init__(self, max_size: int) -> None:
        self.entries: deque[Field] = deque()
        self.max_size = max_size
        self.size = 0

    def add(self, field: Field) -> list[Field]:
        """Insert an entry, unless it is too large, and return those that were evicted for it, the oldest first."""
        name, value = field
        size = len(name) + len(value) + ENTRY_OVERHEAD
        # 4.4: "Before a new entry is added to the dynamic table, entries are evicted from the end of the dynamic table
        # until the size of the dynamic table is less than or equal to (maximum size - new entry size) or until the
        # table is empty." And: "an attempt to add an entry larger than the maximum size causes the table to be
        # emptied".
        evicted = self.evict(self.max_size - size)
        if size <= self.max_size:
            self.entries.appendleft(field)
            self.size += size
        return evicted

    def resize(self, max_size: int) -> list[Field]:
        """Set the maximum size and return the entries that were evicted for it, the oldest first."""
        self.max_size = max_size
        return self.evict(max_size)

    def evict(self, room: int) -> list[Field]:
        """Drop the oldest entries until the size is `room` or less, and return them."""
        evicted = []
        while self.size > room and self.entries:
            field = self.entries.pop()
            self.size -= len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            evicted.append(field)
        return evicted


class HpackDecoder:
    """Decodes the header blocks of one direction of a connection.

    `max_list_size` bounds the fields of a block as RFC 9113 section 6.5.2 counts them: the octets of names and values,
    and 32 for each field. Behind it fields are decoded and not kept, and `list_size` says after `decode` how much it
    was; behind `BOMB` times as much decoding ends. After an error the decoder is of no more use, and neither is the
    connection.
    """

    __slots__ = ("_at", "_block", "_limit", "_shrink", "list_size", "max_list_size", "table")

    def __init__(self, max_list_size: int, table_size: int = DEFAULT_TABLE_SIZE) -> None:
        self.table = DynamicTable(table_size)
        self.max_list_size = max_list_size
        self.list_size = 0
        self._limit = table_size
        self._shrink = False
        self._block = b""
        self._at = 0

    def set_limit(self, limit: int) -> None:
        """Set how large the table may be: the peer acknowledged this SETTINGS_HEADER_TABLE_SIZE."""
        self._limit = limit
        self._shrink = limit < self.table.max_size

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block, as many as `max_list_size` allows.

        Raises `Http2Error`: COMPRESSION_ERROR for what is no block, ENHANCE_YOUR_CALM for a bomb.
        """
        self._block = block
        self._at = 0
        fields: list[Field] = []
        size = 0
        end = len(block)
        began = False
        while self._at < end:
            octet = block[self._at]
            if octet & 0xE0 == 0x20:
                self.update_size(began)
                continue
            if self._shrink:
                break
            began = True
            if octet & 0x80:
                field = self.entry(self.read_integer(7))
            elif octet & 0x40:
                field = self.read_literal(6)
                self.table.add(field)
            else:
                field = self.read_literal(4)
            size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            if size <= self.max_list_size:
                fields.append(field)
            elif size > BOMB * self.max_list_size:
                raise Http2Error(
                    ErrorCode.ENHANCE_YOUR_CALM,
                    f"a header block has over {BOMB * self.max_list_size} bytes of fields in {end}",
                )
        self._block = b""
        self.list_size = size
        if self._shrink:
            # RFC 9113 4.3.1: where the acknowledged size is below the current one, the block "that follows MUST begin
            # with a conformant Dynamic Table Size Update instruction".
            raise Http2Error(
                ErrorCode.COMPRESSION_ERROR,
                f"a header block begins without the update of the table's size, of {self._limit} bytes or less",
            )
        return fields

    def update_size(self, began: bool) -> None:
        """Do a dynamic table size update (section 6.3)."""
        size = self.read_integer(5)
        # 4.2: "This dynamic table size update MUST occur at the beginning of the first header block following the
        # change to the dynamic table size."
        if began:
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "an update of the table's size follows a header field")
        # 6.3: "The new maximum size MUST be lower than or equal to the limit determined by the protocol using HPACK.
        # A value that exceeds this limit MUST be treated as a decoding error."
        if size > self._limit:
            raise Http2Error(
                ErrorCode.COMPRESSION_ERROR, f"the table is to have {size} bytes, the limit is {self._limit}"
            )
        self.table.resize(size)
        self._shrink = False

    def entry(self, index: int) -> Field:
        """Return the field at an index of both tables (section 2.3.3)."""
        if 0 < index <= STATIC_LENGTH:
            return STATIC_TABLE[index - 1]
        # 2.3.3: "Indices strictly greater than the sum of the lengths of both tables MUST be treated as a decoding
        # error." 6.1: "The index value of 0 is not used. It MUST be treated as a decoding error if found in an indexed
        # header field representation."
        if index == 0 or index > STATIC_LENGTH + len(self.table.entries):
            raise Http2Error(
                ErrorCode.COMPRESSION_ERROR,
                f"the index of a header field is {index}, allowed is 1..{STATIC_LENGTH + len(self.table.entries)}",
            )
        return self.table.entries[index - STATIC_LENGTH - 1]

    def read_literal(self, prefix: int) -> Field:
        """Read a literal header field (section 6.2), whose name's index has a prefix of so many bits."""
        index = self.read_integer(prefix)
        name = self.entry(index)[0] if index else self.read_string()
        return name, self.read_string()

    def read_integer(self, prefix: int) -> int:
        """Read an integer (section 5.1)."""
        mask = (1 << prefix) - 1
        value = self._block[self._at] & mask
        self._at += 1
        if value < mask:
            return value
        for place in range(MAX_INTEGER_OCTETS):
            if self._at == len(self._block):
                raise Http2Error(ErrorCode.COMPRESSION_ERROR, "a header block ends in an integer")
            octet = self._block[self._at]
            self._at += 1
            value += (octet & 0x7F) << (7 * place)
            if octet < 0x80:
                return value
        # 5.1: "Integer encodings that exceed implementation limits -- in value or octet length -- MUST be treated
        # as decoding errors."
        raise Http2Error(
            ErrorCode.COMPRESSION_ERROR, f"an integer has over {MAX_INTEGER_OCTETS} octets behind its prefix"
        )

    def read_string(self) -> str:
        """Read a string (section 5.2)."""
        block = self._block
        if self._at == len(block):
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "a header block ends before a string")
        huffman = block[self._at] & 0x80
        length = self.read_integer(7)
        start = self._at
        end = start + length
        if end > len(block):
            raise Http2Error(
                ErrorCode.COMPRESSION_ERROR, f"a string of {length} bytes has {len(block) - start} in its header block"
            )
        self._at = end
        octets = decode_huffman(block, start, end) if huffman else block[start:end]
        return octets.decode("latin-1")


class HpackEncoder:
    """Encodes the header blocks of one direction of a connection.

    `table_size` is what this side wants to keep, in octets as section 4.1 counts them; the peer may allow less.
    """

    __slots__ = ("_evicted", "_fields", "_inserted", "_names", "_table_size", "_updates", "table")

    def __init__(self, table_size: int = DEFAULT_TABLE_SIZE) -> None:
        # Until the peer's SETTINGS came, its table has the default size, and one that shall have less is told so.
        self.table = DynamicTable(min(table_size, DEFAULT_TABLE_SIZE))
        self._table_size = table_size
        self._updates: list[int] = [table_size] if table_size < DEFAULT_TABLE_SIZE else []
        # Entries by field, and by name the newest, as their number: the first entry ever has 1.
        self._fields: dict[Field, int] = {}
        self._names: dict[str, int] = {}
        self._inserted = self._evicted = 0

    def set_limit(self, limit: int) -> None:
        """Set how large the table may be: the peer sent this SETTINGS_HEADER_TABLE_SIZE."""
        size = min(limit, self._table_size)
        if size != self.table.max_size:
            self.forget(self.table.resize(size))
            # 4.2: "In the case that this size is changed more than once in the interval, the smallest maximum table
            # size that occurs in that interval MUST be signaled in a dynamic table size update. The final maximum size
            # is always signaled, resulting in at most two dynamic table size updates."
            smallest = min(self._updates, default=size)
            self._updates = [smallest, size] if smallest < size else [size]

    def encode(self, fields: Iterable[Field]) -> bytes:
        """Return the block of these fields, whose names are in lower case."""
        block = bytearray()
        for size in self._updates:
            write_integer(block, 0x20, 5, size)
        self._updates = []
        for field in fields:
            self.write_field(block, field)
        return bytes(block)

    def write_field(self, block: bytearray, field: Field) -> None:
        """Append the representation of a field (section 6)."""
        name, value = field
        if name in NEVER_INDEXED or (name == "cookie" and len(value) < SHORT_COOKIE):
            self.write_literal(block, 0x10, 4, field)
            return
        index = STATIC_FIELDS.get(field, 0)
        if index == 0 and field in self._fields:
            index = STATIC_LENGTH + 1 + self._inserted - self._fields[field]
        if index:
            write_integer(block, 0x80, 7, index)
        elif name in NOT_INDEXED or len(name) + len(value) + ENTRY_OVERHEAD > self.table.max_size:
            self.write_literal(block, 0x00, 4, field)
        else:
            self.write_literal(block, 0x40, 6, field)
            self.forget(self.table.add(field))
            self._inserted += 1
            self._fields[field] = self._names[name] = self._inserted

    def write_literal(self, block: bytearray, pattern: int, prefix: int, field: Field) -> None:
        """Append a literal representation (section 6.2)."""
        name, value = field
        index = STATIC_NAMES.get(name, 0)
        if index == 0 and name in self._names:
            index = STATIC_LENGTH + 1 + self._inserted - self._names[name]
        write_integer(block, pattern, prefix, index)
        if index == 0:
            write_string(block, name)
        write_string(block, value)

    def forget(self, evicted: list[Field]) -> None:
        """Drop what is no longer in the table from what finds it."""
        for field in evicted:
            self._evicted += 1
            # Nothing is in the table twice, but a name may have a newer entry.
            del self._fields[field]
            if self._names[field[0]] == self._evicted:
                del self._names[field[0]]


def write_integer(block: bytearray, pattern: int, prefix: int, value: int) -> None:
    """Append an integer (section 5.1) behind the bits of a pattern."""
    mask = (1 << prefix) - 1
    if value < mask:
        block.append(pattern | value)
        return
    block.append(pattern | mask)
    value -= mask
    while value >= 0x80:
        block.append(value & 0x7F | 0x80)
        value >>= 7
    block.append(value)


def write_string(block: bytearray, text: str) -> None:
    """Append a string (section 5.2), in Huffman code where that is shorter."""
    octets = text.encode("latin-1")
    size = huffman_size(octets)
    if size < len(octets):
        write_integer(block, 0x80, 7, size)
        block += encode_huffman(octets)
    else:
        write_integer(block, 0x00, 7, len(octets))
        block += octets
