"""Decoder: bytes to events (WHATWG HTML section 9.2.6).

Laws:
1. The same bytes in any pieces give the same events, and the same error after them.
2. Bytes are decoded line by line: no octet of UTF-8's longer sequences is CR or LF, so no line cuts a character.
3. What is held of a block that is not at its end is its data, type and id, and the line that is arriving: `max_size`
   bytes of them at the most, where an octet that is no UTF-8 counts as one, and is held as the three of U+FFFD.
"""

from __future__ import annotations

import sys

from .encoder import MAX_RETRY
from .event import Event, EventTooLarge

__all__ = ["MAX_SIZE", "Decoder"]

# Of an event, in bytes: that of a WebSocket message in rawws and websockets. Most events have some hundred bytes.
MAX_SIZE = 1 << 20
BOM = b"\xef\xbb\xbf"


class Decoder:
    """Give what a server sends to `receive`, and the end of the response to `receive_eof`.

    `last_event_id` is what a client that reconnects sends as Last-Event-ID, empty for none; it may be set before the
    first stream. `retry` is how long it waits before that, in milliseconds, None where the server did not say.
    `max_size` is the size of an event in bytes, None for no limit. Its `data`, `event` and `id` lines count, and so
    does the line that is arriving, be it a comment.
    """

    __slots__ = (
        "_after_cr", "_begun", "_data", "_event", "_id", "_line", "_max_size", "_size", "_too_large", "last_event_id",
        "retry",
    )  # fmt: skip

    def __init__(self, max_size: int | None = MAX_SIZE) -> None:
        if max_size is not None and not isinstance(max_size, int):
            raise TypeError(f"max_size is {type(max_size).__name__}, allowed are numbers above 0 and None")
        if max_size is not None and not max_size > 0:
            raise ValueError(f"max_size is {max_size}, allowed are numbers above 0 and None")
        self._max_size = sys.maxsize if max_size is None else min(max_size, sys.maxsize)
        self.last_event_id = ""
        self.retry: int | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin a stream."""
        self._begun = False
        self._after_cr = False
        self._too_large = False
        # What is here of the line that is arriving.
        self._line = bytearray()
        # The data, the type and the id of the block that is arriving, as far as they came in earlier pieces.
        self._data: bytearray | None = None
        self._event = ""
        self._id: str | None = None
        self._size = 0

    def receive(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete.

        Raises EventTooLarge for a block over `max_size`: at once where no event came before it, else with the next
        call. From then on it raises that for all that comes, until `receive_eof`.
        """
        if self._too_large:
            raise self._error()
        if not isinstance(data, bytes):
            raise TypeError(f"data is {type(data).__name__}, allowed is bytes")
        if not self._begun:
            data = self._strip_bom(data)
        lines = self._split(data) if self._after_cr or b"\r" in data else data.split(b"\n")
        rest = lines.pop()
        events = []
        if lines:
            if self._line:
                lines[0] = bytes(self._line) + lines[0]
                self._line.clear()
            events = self._read(lines)
        if rest:
            self._line += rest
            if self._size + len(self._line) > self._max_size:
                self._too_large = True
        if self._too_large:
            self._line.clear()
            self._data = None
            if not events:
                raise self._error()
        return events

    def receive_eof(self) -> None:
        """Discard what is not complete; then the decoder is ready for the next stream, which goes on where this ends.

        Raises EventTooLarge if that is how the stream ended.
        """
        # 9.2.6: "Once the end of the file is reached, any pending data must be discarded. (If the file ends in the
        # middle of an event, before the final empty line, the incomplete event is not dispatched.)"
        too_large = self._too_large
        self._begin()
        if too_large:
            raise self._error()

    def _error(self) -> EventTooLarge:
        return EventTooLarge(f"an event is over {self._max_size} bytes, the limit")

    def _strip_bom(self, data: bytes) -> bytes:
        """Return what came so far without the byte order mark, or nothing as long as there may still be one."""
        # 9.2.6: "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
        data = bytes(self._line) + data
        self._line.clear()
        if len(data) < len(BOM) and BOM.startswith(data):
            self._line += data
            return b""
        self._begun = True
        return data.removeprefix(BOM)

    def _split(self, data: bytes) -> list[bytes]:
        """Return the lines, where some end with CR; the last one is not at its end."""
        # 9.2.6: "a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single U+000A LINE FEED (LF)
        # character not preceded by a U+000D CARRIAGE RETURN (CR) character, and a single U+000D CARRIAGE RETURN (CR)
        # character not followed by a U+000A LINE FEED (LF) character being the ways in which a line can end". A CR that
        # is the last byte here ends its line at once; an LF that follows ends none.
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        lines = data.split(b"\r\n")
        ends = len(lines) - 1
        if data.count(b"\n") == ends and data.count(b"\r") == ends:
            return lines
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")

    def _read(self, lines: list[bytes]) -> list[Event]:
        """Process complete lines, in the order they came.

        One long function, for speed, and with the lines that servers write most before all others:
        tests/benchmarks/sse_codec.py.
        """
        events: list[Event] = []
        # The data of the block, as far as it stands in these lines.
        parts: list[str] = []
        size = self._size
        limit = self._max_size
        for line in lines:
            length = len(line)
            # 9.2.6: "If the line is empty (a blank line) - Dispatch the event"
            if length == 0:
                # "Set the last event ID string of the event source to the value of the last event ID buffer. The buffer
                # does not get reset, so the last event ID string of the event source remains set to this value until
                # the next time it is set by the server."
                if self._id is not None:
                    self.last_event_id = self._id
                    self._id = None
                if self._data is not None:
                    parts.insert(0, self._data.decode())
                    self._data = None
                # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty
                # string and return.": that buffer has an LF for each line of data, so one without a value is enough.
                if parts:
                    events.append(Event("\n".join(parts), self._event or None, self.last_event_id))
                    parts.clear()
                self._event = ""
                size = 0
                continue
            if size + length > limit:
                self._too_large = True
                break
            if line.startswith(b"data: "):
                parts.append(line[6:].decode("utf-8", "replace"))
            elif line.startswith(b"event: "):
                self._event = line[7:].decode("utf-8", "replace")
            elif line.startswith(b"id: ") and b"\0" not in line:
                self._id = line[4:].decode("utf-8", "replace")
            elif not self._process(line, parts):
                continue
            size += length + 1
        self._size = size
        if parts:
            self._hold("\n".join(parts).encode())
        return events

    def _process(self, line: bytes, parts: list[str]) -> bool:
        """Process any line that is not blank, and return whether anything of it is held."""
        # 9.2.6: "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
        # string. [...] If value starts with a U+0020 SPACE character, remove it from value." A line without a colon is
        # a name without a value, and one that starts with a colon, a comment, has a name that is none of these.
        field, _, octets = line.partition(b":")
        value = octets.removeprefix(b" ").decode("utf-8", "replace")
        # "Field names must be compared literally, with no case folding performed."
        if field == b"data":
            parts.append(value)
        elif field == b"event":
            self._event = value
        # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value.
        # Otherwise, ignore the field."
        elif field == b"id" and "\0" not in value:
            self._id = value
        # "If the field value consists of only ASCII digits, then interpret the field value as an integer in base ten,
        # and set the event stream's reconnection time to that integer. Otherwise, ignore the field."
        elif field == b"retry" and value.isascii() and value.isdigit():
            # Python refuses to read 4,301 digits, and 17 are above the limit already.
            self.retry = min(int(value.lstrip("0")[:17] or "0"), MAX_RETRY)
            return False
        else:
            return False
        return True

    def _hold(self, data: bytes) -> None:
        """Hold lines of data until the block is complete."""
        if self._data is None:
            self._data = bytearray(data)
        else:
            self._data += b"\n"
            self._data += data
