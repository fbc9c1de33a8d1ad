"""Responses: what an application answers plain HTTP with, to a head and a body (RFC 9110 section 15)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rawws.protocol.http11 import Headers, HttpResponse

from .files import FileResponse

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

__all__ = ["Received", "Response", "as_response"]


class Received(HttpResponse):
    """A response as a client gets it."""

    __slots__ = ()

    @property
    def status_code(self) -> int:
        """The status, by its name in `websockets`."""
        return self.status


class Response(HttpResponse):
    """An HTTP response; a str is encoded as UTF-8 and is plain text unless `content_type` says otherwise.

    Raises TypeError for another body, ValueError for a status that is not one of a final response (200 to 599).
    """

    __slots__ = ()

    def __new__(
        cls,
        status: int = 200,
        body: str | bytes = b"",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> Response:
        """Make the response of the head's fields and the octets of the body."""
        if not isinstance(body, (str, bytes)):
            raise TypeError(f"body is {type(body).__name__}, allowed are str and bytes")
        if not 200 <= int(status) <= 599:
            raise ValueError(f"status is {status}, allowed are 200 to 599")
        fields = Headers(headers)
        if content_type is None and isinstance(body, str):
            content_type = "text/plain; charset=utf-8"
        if content_type is not None and "Content-Type" not in fields:
            fields["Content-Type"] = content_type
        if content_type == "application/json" and "X-Content-Type-Options" not in fields:
            # Text of users in JSON must be no page, whatever it looks like.
            fields["X-Content-Type-Options"] = "nosniff"
        return super().__new__(cls, int(status), fields, body.encode() if isinstance(body, str) else body)

    @classmethod
    def json(
        cls, data: object, status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> Response:
        """Make a response of what `json` can write; raises TypeError or ValueError for what it cannot."""
        # Not a number is no JSON either (RFC 8259 section 6), and no browser reads it.
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return cls(status, text.encode(), headers, "application/json")

    @staticmethod
    def file(
        path: str | os.PathLike[str],
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> FileResponse:
        """Return what sends a file in pieces, or 304 to a client that has it, or 404 where there is none.

        With a `folder`, the path is one in it, and what leads out of it, by `..` or a symbolic link, is a 404.
        """
        return FileResponse(path, headers, content_type, folder=folder)


def as_response(answer: Any) -> HttpResponse:
    """Return the response that an endpoint's answer stands for: text, octets, JSON, or nothing at all (204).

    Raises TypeError for what is none.
    """
    if isinstance(answer, HttpResponse):
        return answer
    if answer is None:
        return HttpResponse(204, Headers())
    if isinstance(answer, str):
        return Response(200, answer)
    if isinstance(answer, bytes):
        return Response(200, answer, content_type="application/octet-stream")
    if isinstance(answer, (dict, list)):
        return Response.json(answer)
    raise TypeError(f"the answer is {type(answer).__name__}, allowed are a Response, str, bytes, dict, list and None")
