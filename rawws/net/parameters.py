"""Parameters: what a request says in its query and in its cookies, to mappings (RFC 3986 section 3.4, RFC 6265)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from rawws.protocol.http11 import Request

__all__ = ["Query", "parse_cookies", "query_of", "token_in"]


@final
class Query(Mapping[str, str]):
    """The parameters behind the `?`: a mapping from names to their first value; `get_all` gives all of one name."""

    __slots__ = ("_values",)

    def __init__(self, query: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Query({self._values!r})"

    def get_all(self, name: str) -> list[str]:
        """Return all values of a name in their order, an empty list if there is none."""
        return list(self._values.get(name, ()))


def query_of(request: Request) -> Query:
    """Return the parameters of a request."""
    return Query(request.path.partition("?")[2])


def parse_cookies(request: Request) -> dict[str, str]:
    """Return the cookies of a request by name; of two with one name the first, whose path is the longer one.

    What is no pair is skipped, and values are taken as they are, as browsers do: the `http.cookies` of the standard
    library drops all that follows a value that it does not know, such as one of JSON that another program set.
    """
    found: dict[str, str] = {}
    for pair in ";".join(request.headers.get_all("Cookie")).split(";"):
        name, equals, value = pair.partition("=")
        value = value.strip()
        if equals and name.strip():
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            found.setdefault(name.strip(), value[1:-1] if quoted else value)
    return found


def token_in(request: Request) -> str:
    """Return the token of a request: that of `Authorization: Bearer` (RFC 6750), else of `?token=`; "" for none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else query_of(request).get("token", "")
