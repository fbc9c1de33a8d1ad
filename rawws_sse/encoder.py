"""Encoder: events to bytes (WHATWG HTML section 9.2.5).

Law: what an application puts into one field never becomes another field, or another event. Data is split where a client
would end a line; where there is nothing to split, a line end raises, and nothing is stripped silently.
"""

from __future__ import annotations

from .event import Event

__all__ = ["MAX_RETRY", "encode"]

# 285,000 years, in milliseconds: the largest integer that is exact in a browser.
MAX_RETRY = 2**53 - 1


def encode(event: Event | str) -> bytes:
    """Return an event, or a str as the data of one, as the bytes that a client reads, with the blank line at its end.

    Raises ValueError for CR, LF or NUL in its type or id, for CR or LF in a comment and for a `retry` below 0 or above
    MAX_RETRY; TypeError for fields that are no str, or no int; UnicodeEncodeError, a ValueError, for lone surrogates.
    """
    if not isinstance(event, Event):
        return encode_data("", event)
    data, name, last_id, retry, comment = event.fields()
    head = ""
    if comment is not None:
        head = f": {checked('comment', comment, nul=True)}\n"
    # 9.2.6: "If the event type buffer has a value other than the empty string, change the type of the newly created
    # event to equal the value of the event type buffer": so the empty type is the default one.
    if name is not None and name != "":
        head += f"event: {checked('event', name, nul=False)}\n"
    # 9.2.6: "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value.
    # Otherwise, ignore the field.": an empty id takes effect, one with NUL would not.
    if last_id is not None:
        head += f"id: {checked('id', last_id, nul=False)}\n"
    if retry is not None:
        head += f"retry: {checked_retry(retry)}\n"
    return f"{head}\n".encode() if data is None else encode_data(head, data)


def encode_data(head: str, data: str) -> bytes:
    """Return the lines of `head`, those of the data, and the blank line."""
    text = data if type(data) is str else plain("data", data, "Event")
    # 9.2.5: "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a
    # single U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE RETURN (CR) character": and by nothing else
    # that Unicode, and str.splitlines, take for the end of a line.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in text:
        text = text.replace("\n", "\ndata: ")
    return f"{head}data: {text}\n\n".encode()


def checked(field: str, value: str, nul: bool) -> str:
    """Return the value of a field of one line."""
    text = value if type(value) is str else plain(field, value, "None")
    if "\n" in text or "\r" in text:
        raise ValueError(f"{field} is {text[:80]!r}, allowed is text without CR and LF")
    if "\0" in text and not nul:
        raise ValueError(f"{field} is {text[:80]!r}, allowed is text without NUL")
    return text


def plain(field: str, value: str, other: str) -> str:
    """Return the str that an object of a subclass is: of a member of an enumeration its value, and not its name."""
    if not isinstance(value, str):
        raise TypeError(f"{field} is {type(value).__name__}, allowed are str and {other}")
    return str.__str__(value)


def checked_retry(retry: int) -> int:
    """Return a reconnection time."""
    # 9.2.6: "If the field value consists of only ASCII digits, then interpret the field value as an integer in base
    # ten": a sign, a fraction or the word True would be ignored.
    if not isinstance(retry, int) or isinstance(retry, bool):
        raise TypeError(f"retry is {type(retry).__name__}, allowed are int and None")
    if not 0 <= retry <= MAX_RETRY:
        raise ValueError(f"retry is {retry}, allowed are 0 to {MAX_RETRY}")
    return retry
