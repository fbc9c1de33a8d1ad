"""Files: a path to a response: the whole file in pieces, 304 to a client that has it, 404 (RFC 9110 section 13)."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, final

from rawws.errors import HttpError
from rawws.protocol.http11 import Headers, HttpResponse

from .exchange import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .exchange import Exchange
    from .requests import HttpRequest

__all__ = ["FileResponse"]

# So much is read at a time; less than that is read in the event loop, for a thread costs more.
PIECE = 65536
# Why there is no file: nothing, no folder, a folder, not for us, too long a name, links in a circle, no device.
ABSENT = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO,
    errno.EINVAL,
})  # fmt: skip

# Windows has none of these, and knows a binary file from a text.
READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
OPEN_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


@final
class FileResponse:
    """A file as a response; it is looked at when it is sent.

    With a `folder`, the path is one in it, and what leads out of it is a 404, by `..` or by a symbolic link. Links that
    stay inside are followed, and those in the path of the folder itself.
    """

    __slots__ = ("_fields", "folder", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.path = Path(path) if self.folder is None else self.folder / path
        self._fields = Headers(headers)
        if "Content-Type" not in self._fields:
            self._fields["Content-Type"] = content_type or _content_type(self.path)
            # It is the file's name that says what it is, and nothing in it.
            self._fields["X-Content-Type-Options"] = "nosniff"

    def open(self, asked: Headers) -> tuple[HttpResponse, BinaryIO | None]:
        """Return the head to answer a request with such headers, and the file to send behind it, if it is one.

        Raises HttpError(404) where there is no file.
        """
        try:
            file = open_regular(self.path) if self.folder is None else open_below(self.folder, self.path)
        except ValueError:
            # A NUL, or a way out of the folder.
            raise HttpError(404, "there is no such file") from None
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            raise HttpError(404, "there is no such file") from None
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

    # -- what the exchange calls

    def begin(self, exchange: Exchange, request: HttpRequest) -> None:
        """Send the file. Raises HttpError(404) where there is none."""
        head, file = self.open(request.headers)
        if file is None:
            exchange.respond(head)
            return
        length = int(head.headers["Content-Length"])
        if exchange.omit_body or length <= PIECE:
            with file:
                exchange.respond(head if exchange.omit_body else head._replace(body=file.read(PIECE)))
        else:
            exchange.begin_response(head)
            exchange.observe(FileTransfer(exchange, file, length))

    def lose(self) -> None:
        """Do nothing: the client left before the file was opened."""


def open_regular(path: Path, directory: int | None = None) -> BinaryIO:
    """Open a regular file, in a directory that is open; of one there, a symbolic link is no such file.

    Raises OSError for what is none.
    """
    follows = directory is None
    # Opening a device could do something, opening a FIFO that just came there would block for ever.
    if not stat.S_ISREG(os.stat(path, dir_fd=directory, follow_symlinks=follows).st_mode):
        raise FileNotFoundError(errno.ENOENT, "there is no regular file")
    flags = READ_ONLY | (0 if follows else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags, dir_fd=directory), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "there is no regular file")
    return file


def open_below(folder: Path, path: Path) -> BinaryIO:
    """Open a regular file that is in a folder when all links are followed. Raises OSError or ValueError for others.

    What was found is opened step by step and without links: a link that comes there meanwhile leads nowhere.
    """
    root = os.path.realpath(folder, strict=True)
    *folders, name = Path(os.path.realpath(path, strict=True)).relative_to(root).parts or ("",)
    if os.open not in os.supports_dir_fd:
        return open_regular(Path(root, *folders, name))
    directory = os.open(root, OPEN_FOLDER)
    try:
        for each in folders:
            outer, directory = directory, os.open(each, OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=directory)
            os.close(outer)
        return open_regular(Path(name), directory)
    finally:
        os.close(directory)


@final
class FileTransfer:
    """A file on its way to a client, in pieces."""

    __slots__ = ("_exchange", "_file", "_left", "_task")

    def __init__(self, exchange: Exchange, file: BinaryIO, length: int) -> None:
        self._exchange = exchange
        self._file = file
        self._left = length
        self._task = exchange.context.start(self._send())
        # Where the client leaves at once, the task never begins.
        self._task.add_done_callback(lambda _: file.close())

    async def _send(self) -> None:
        """Send the file as the client takes it."""
        exchange, loop = self._exchange, asyncio.get_running_loop()
        with self._file as file:
            while self._left:
                if not exchange.context.closing:
                    exchange.set_deadline(PATIENCE)
                piece = await loop.run_in_executor(None, file.read, min(self._left, PIECE))
                if not piece or exchange.socket.lost:
                    break
                self._left -= len(piece)
                exchange.write(piece)
                await exchange.socket.wait_drained()
        if self._left:
            # The file was cut meanwhile, or the client is gone.
            exchange.socket.abort()
        else:
            exchange.finish()

    # -- what the exchange calls

    @property
    def kind(self) -> str:
        """What it sends."""
        return "http"

    def lose(self) -> None:
        """Stop sending the file: the client has left."""
        self._task.cancel()

    def expire(self) -> None:
        """Give up a client that reads nothing."""
        self._exchange.connection.press()

    def shut_down(self) -> None:
        """End with the server, which waits for a response as long as for a closing handshake."""
        self._exchange.socket.set_deadline(self._exchange.context.settings.close_timeout)


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
