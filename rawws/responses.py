"""Responses: what `process_request` answers a plain HTTP request with (RFC 9110 section 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .protocol.http11 import Headers
from .protocol.http11 import Response as HttpResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Received", "Response"]


class Received(HttpResponse):
    """A response as a client gets it."""

    __slots__ = ()

    @property
    def status_code(self) -> int:
        """The status, by its name in `websockets`."""
        return self.status


def Response(  # noqa: N802 - the name of the thing it makes
    status: int = 200,
    body: str | bytes = b"",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    content_type: str | None = None,
) -> HttpResponse:
    """Make an HTTP response; a str is encoded as UTF-8 and is plain text unless `content_type` says otherwise.

    Raises TypeError for another body, ValueError for a status that is not one of a final response (200 to 599).
    """
    if not isinstance(body, (str, bytes)):
        raise TypeError(f"body is {type(body).__name__}, allowed are str and bytes")
    if not 200 <= int(status) <= 599:
        raise ValueError(f"status is {status}, allowed are 200 to 599")
    fields = Headers(headers)
    if content_type is None and isinstance(body, str):
        content_type = "text/plain; charset=utf-8"
    if content_type is not None and "Content-Type" not in fields:
        fields["Content-Type"] = content_type
    return HttpResponse(int(status), fields, body.encode() if isinstance(body, str) else body)
