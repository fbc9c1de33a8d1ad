"""Responses: what an application answers plain HTTP with, to a head and a body (RFC 9110 section 15)."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, final

from rawws.errors import HandshakeError
from rawws.protocol.http11 import Headers
from rawws.protocol.http11 import Response as HttpResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FileResponse", "Received", "Response", "as_response"]


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
    ) -> FileResponse:
        """Return what sends a file in pieces, or 304 to a client that has it, or 404 where there is none."""
        return FileResponse(path, headers, content_type)


@final
class FileResponse:
    """A file as a response; it is looked at when it is sent."""

    __slots__ = ("_fields", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._fields = Headers(headers)
        if "Content-Type" not in self._fields:
            self._fields["Content-Type"] = content_type or _content_type(self.path)
            # It is the file's name that says what it is, and nothing in it.
            self._fields["X-Content-Type-Options"] = "nosniff"

    def open(self, asked: Headers) -> tuple[HttpResponse, BinaryIO | None]:
        """Return the head to answer a request with such headers, and the file to send behind it, if it is one.

        Raises HandshakeError(404) where there is no file.
        """
        try:
            # Opening a FIFO or a device could block for ever, or do something.
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise FileNotFoundError
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            raise HandshakeError(404, "there is no such file") from None
        from email.utils import formatdate  # noqa: PLC0415 - few servers have files

        status = os.fstat(file.fileno())
        fields = Headers(self._fields)
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        fields["ETag"] = etag
        fields["Last-Modified"] = formatdate(status.st_mtime, usegmt=True)
        if _is_known(asked, etag, int(status.st_mtime)):
            file.close()
            return HttpResponse(304, fields), None
        fields["Content-Length"] = str(status.st_size)
        return HttpResponse(200, fields), file


def _content_type(path: Path) -> str:
    import mimetypes  # noqa: PLC0415 - few servers have files

    kind, coding = mimetypes.guess_type(path.name)
    if kind is None or coding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _is_known(asked: Headers, etag: str, modified: int) -> bool:
    """Tell whether the client has this version of a file already (RFC 9110 section 13)."""
    # RFC 9110 13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header
    # field".
    if "If-None-Match" in asked:
        tags = [tag.strip().removeprefix("W/") for tag in ",".join(asked.get_all("If-None-Match")).split(",")]
        return etag in tags or tags == ["*"]
    # RFC 9110 13.1.3: "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a
    # valid HTTP-date".
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few servers have files

    try:
        return modified <= parsedate_to_datetime(asked.get("If-Modified-Since", "")).timestamp()
    except (ValueError, LookupError, OverflowError):
        return False


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
