"""Retrying: errors to waits, and to the decision not to try again (RFC 6455 section 7.2.3, RFC 9110 section 10.2.3)."""

from __future__ import annotations

import random
import ssl
import time
from typing import TYPE_CHECKING

from rawws.errors import ConnectionClosed, HandshakeError
from rawws.protocol.opcodes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LONGEST_ASKED", "STABLE", "full_jitter", "is_permanent", "process_exception", "retry_after"]

# RFC 6455 7.2.3 calls 0 to 5 seconds reasonable for the first wait, which is for servers with very many clients: one
# second brings 10,000 of them back at the rate that one of our servers takes (36 us of CPU each) with room to spare.
FIRST_WAIT = 1.0
# The seventh wait and all later ones; websockets goes up to 90 s.
LONGEST_WAIT = 60.0
# A connection that lived for so many seconds was a good one: after its end the waits begin with the shortest.
STABLE = 10.0
# What a server may ask for: it would be a mistake, or an attack, to stay away for days.
LONGEST_ASKED = 3600.0
# "[1012] a client may reconnect, and if it chooses to do, should reconnect using a randomized delay of 5-30s" (the
# registration of 1012, to which RFC 6455 section 11.7 leaves the codes). 1013, "try again later", asks for no less.
ASKED_BY_CODE: dict[int, tuple[float, float]] = {
    CloseCode.SERVICE_RESTART: (5.0, 30.0),
    CloseCode.TRY_AGAIN_LATER: (5.0, 30.0),
}
# Ends after which the same would come again.
PERMANENT = {CloseCode.PROTOCOL_ERROR, CloseCode.POLICY_VIOLATION}


def is_permanent(error: BaseException) -> bool:
    """Tell whether trying again is of no use: the server understood, and refused, or this program is wrong.

    It may help after what the network did (OSError, a timeout), after the statuses 408, 429 and 5xx (RFC 9110 section
    15), and after any end of a connection but by the close codes 1002 and 1008.
    """
    if isinstance(error, HandshakeError):
        return 0 < error.status < 500 and error.status not in {408, 429}
    if isinstance(error, ConnectionClosed):
        return any(close is not None and close.code in PERMANENT for close in (error.rcvd, error.sent))
    return not isinstance(error, OSError) or isinstance(error, ssl.SSLCertVerificationError)


def process_exception(error: Exception) -> Exception | None:
    """Return None for what may heal, so that `connect` tries again, and else the error, which it raises."""
    return error if is_permanent(error) else None


def full_jitter(
    draw: Callable[[float, float], float] = random.uniform, *, first: float = FIRST_WAIT, longest: float = LONGEST_WAIT
) -> Iterator[float]:
    """Yield the waits between attempts, in seconds: the n-th is drawn evenly from 0 to `first` * 2**n, or to `longest`.

    Clients that lost the same server together so do not come back together.
    """
    # RFC 6455 7.2.3: "The first reconnect attempt SHOULD be delayed by a random amount of time." "Should the first
    # reconnect attempt fail, subsequent reconnect attempts SHOULD be delayed by increasingly longer amounts of time,
    # using a method such as truncated binary exponential backoff."
    limit = first
    while True:
        yield draw(0, limit)
        limit = min(2 * limit, longest)


def retry_after(error: BaseException, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Return for how many seconds the server asked to stay away, by Retry-After or by the close codes 1012 and 1013."""
    if isinstance(error, HandshakeError):
        values = [value for name, value in error.headers if name.lower() == "retry-after"]
        return _parse_retry_after(values[0]) if values else 0.0
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in ASKED_BY_CODE:
        return draw(*ASKED_BY_CODE[error.rcvd.code])
    return 0.0


def _parse_retry_after(value: str) -> float:
    """Read `Retry-After = HTTP-date / delay-seconds` (RFC 9110 section 10.2.3); what is neither asks for nothing."""
    if value.isascii() and value.isdigit():
        # Ten digits are 30 years at least; of many more, to read them is slow.
        seconds = float(value.lstrip("0")[:10] or "0")
    else:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few servers say a date

        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_ASKED)
