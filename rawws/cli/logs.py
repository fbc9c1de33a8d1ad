"""Logs: what is logged on standard error, as text or as JSON, one object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import final

from .streams import LogHandler, lay_out

__all__ = ["JsonFormatter", "begin_json_lines", "begin_logging"]


@final
class JsonFormatter(logging.Formatter):
    """A record as a JSON object in one line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps(fields, ensure_ascii=False)


def begin_json_lines() -> None:
    """Have what is said beside the log, such as where it listens, be records of it, of the logger `rawws.cli`."""
    formatter = JsonFormatter()

    def make(level: int, text: str) -> str:
        return formatter.format(logging.LogRecord("rawws.cli", level, "", 0, text, None, None))

    lay_out(make)


def begin_logging(level: str, *, as_json: bool) -> None:
    """Log from this level on, on standard error."""
    handler = LogHandler()
    if as_json:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
