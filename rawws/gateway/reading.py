"""Reading: tables of TOML to checked values, and all that is wrong with them, each mistake with its key.

Laws:
1. A mistake ends nothing: reading goes on with a value that fits, so that all mistakes are told at once.
2. A key that nobody reads is a mistake: a limit that is misspelt would be no limit.
3. No secret stands in a mistake.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

__all__ = ["TableReader"]

# What a table of TOML may hold, in the words of its specification (https://toml.io/en/v1.0.0).
KINDS: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}
# As keys of an application are shown in a mistake: not at all, and others no longer than this.
SHOWN: Final = 64


@final
class TableReader:
    """One table, and where it stands; `mistakes` is shared by all tables of a file."""

    __slots__ = ("_known", "_table", "mistakes", "path")

    def __init__(self, table: dict[str, Any], path: str, mistakes: list[str]) -> None:
        self._table = table
        self._known: set[str] = set()
        self.path = path
        self.mistakes = mistakes

    def wrong(self, key: str, what: str) -> None:
        """Tell a mistake."""
        self.mistakes.append(f"{self._place(key)}: {what}")

    def has(self, key: str) -> bool:
        """Tell whether a key is there."""
        return key in self._table

    def is_table(self, key: str) -> bool:
        """Tell whether a table stands under a key."""
        return isinstance(self._table.get(key), dict)

    def text(
        self, key: str, default: str | None = None, *, pattern: str = "", allowed: str = "", among: tuple[str, ...] = ()
    ) -> str:
        """Return a string that matches `pattern`, which `allowed` says in words, or is one of `among`."""
        value = self._take(key, str, default)
        if not isinstance(value, str):
            return default or ""
        if among and value not in among:
            self.wrong(key, f"it is {value[:SHOWN]!r}, allowed are {', '.join(among)}")
        elif self.has(key) and pattern and not re.fullmatch(pattern, value, re.ASCII):
            self.wrong(key, f"it is {value[:SHOWN]!r}, allowed is {allowed or pattern}")
        else:
            return value
        return default or ""

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self._take(key, bool, default)
        return value if isinstance(value, bool) else default

    def number(self, key: str, default: float | None, low: float, high: float, *, whole: bool = False) -> float | None:
        """Return a number in these bounds; None only by default."""
        if not self.has(key):
            self._known.add(key)
            return default
        value = self._take(key, int if whole or not isinstance(self._table[key], float) else float, default)
        if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return default
        if not low <= value <= high:
            self.wrong(key, f"it is {value}, allowed are {low} to {high}")
            return default
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """Return a whole number in these bounds."""
        return int(self.number(key, default, low, high, whole=True) or 0)

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        """Return a time in these bounds."""
        return float(self.number(key, default, low, high) or 0.0)

    def url(self, key: str, default: str | None = None) -> str:
        """Return a URL of HTTP."""
        value = self.text(key, default)
        if self.has(key) and value:
            try:
                found = urlsplit(value)
                right = found.scheme in {"http", "https"} and bool(found.hostname) and (found.port or 1) > 0
            except ValueError:
                right = False
            if not right:
                self.wrong(key, "it is no URL, allowed are those of http:// and https:// with a host")
                return default or ""
        return value

    def secret(self, key: str, default: str | None = None) -> str:
        """Return a secret: a literal, that of a variable (`env:NAME`), or the first line of a file (`file:/path`)."""
        found = self._take(key, str, default)
        return self._resolved(key, found) if isinstance(found, str) else default or ""

    def public_key(self, key: str, default: str | None = None) -> str:
        """Return a secret, or a key of several lines: of a file all of it counts."""
        found = self._take(key, str, default)
        return self._resolved(key, found, whole=True) if isinstance(found, str) else default or ""

    def _resolved(self, key: str, value: str, *, whole: bool = False) -> str:
        """Return what a secret stands for, "" for nothing."""
        kind, _, name = value.partition(":")
        if kind == "env":
            value = os.environ.get(name, "")
            if not value:
                self.wrong(key, f"the environment has no variable {name[:SHOWN]}, or it is empty")
        elif kind == "file":
            try:
                text = Path(name).read_text(encoding="utf-8")
                value = (text if whole else next(iter(text.splitlines()), "")).strip()
            except (OSError, UnicodeDecodeError) as error:
                self.wrong(key, f"cannot read {name}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
                return ""
            if not value:
                self.wrong(key, f"the first line of {name} is empty")
        elif not value and self.has(key):
            self.wrong(key, "it is empty")
        return value

    def texts(
        self, key: str, default: tuple[str, ...] | None = (), *, pattern: str = "", allowed: str = ""
    ) -> tuple[str, ...]:
        """Return strings, each of which matches `pattern`; None as the default for a key that must be there."""
        values = self._take(key, list, None if default is None else list(default))
        found = []
        for number, value in enumerate(values if isinstance(values, list) else []):
            if not isinstance(value, str):
                self.wrong(f"{key}[{number}]", f"it is {kind_of(value)}, allowed is a string")
            elif pattern and not re.fullmatch(pattern, value, re.ASCII):
                self.wrong(f"{key}[{number}]", f"it is {value[:SHOWN]!r}, allowed is {allowed or pattern}")
            else:
                found.append(value)
        return tuple(found)

    def names(self) -> list[str]:
        """Return the keys that there are."""
        return list(self._table)

    def pairs(self, key: str) -> dict[str, str]:
        """Return a table of strings."""
        values = self._take(key, dict, {})
        found = {}
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str):
                found[name] = value
            else:
                self.wrong(f"{key}.{name}", f"it is {kind_of(value)}, allowed is a string")
        return found

    def table(self, key: str) -> TableReader | None:
        """Return a table, None where there is none."""
        value = self._take(key, dict, {})
        if not self.has(key) or not isinstance(value, dict):
            return None
        return TableReader(value, self._place(key), self.mistakes)

    def tables(self, key: str) -> list[TableReader]:
        """Return the tables of an array."""
        values = self._take(key, list, [])
        found = []
        for number, value in enumerate(values if isinstance(values, list) else []):
            if isinstance(value, dict):
                found.append(TableReader(value, self._place(f"{key}[{number}]"), self.mistakes))
            else:
                self.wrong(f"{key}[{number}]", f"it is {kind_of(value)}, allowed is a table")
        return found

    def end(self) -> None:
        """Tell of the keys that nobody asked for."""
        for key in self._table:
            if key not in self._known:
                meant = difflib.get_close_matches(key, sorted(self._known), 1)
                self.wrong(key, f"there is no such key, {f'did you mean {meant[0]}?' if meant else self._names()}")

    def _names(self) -> str:
        return f"allowed are {', '.join(sorted(self._known))}"

    def _place(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _take(self, key: str, kind: type, default: Any) -> Any:
        """Return what stands under a key; the default where it is missing, or of another type."""
        self._known.add(key)
        if key not in self._table:
            if default is None:
                self.wrong(key, f"it is missing, needed is {KINDS[kind]}")
            return default
        value = self._table[key]
        # In Python, a bool is an int.
        if type(value) is not kind:
            self.wrong(key, f"it is {kind_of(value)}, allowed is {KINDS[kind]}")
            return default
        return value


def kind_of(value: object) -> str:
    """Return what a value of TOML is, in words."""
    return KINDS.get(type(value), "a date or a time")
