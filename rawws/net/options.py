"""Options: what the options of servers and clients have in common."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_limits", "options_for"]

P = ParamSpec("P")
Options = TypeVar("Options")

# How Python begins what is wrong with the arguments of a class.
CLASS = re.compile(r"[\w.<>]+\.__init__\(\)")


def options_for(call: str, options: Callable[P, Options], *arguments: P.args, **keywords: P.kwargs) -> Options:
    """Return the options of a call. TypeError for a name that there is not names the call, not their class."""
    try:
        return options(*arguments, **keywords)
    except TypeError as error:
        words, count = CLASS.subn(f"{call}()", str(error), count=1)
        if not count:
            raise
        raise TypeError(words) from None


def check_limits(**limits: Any) -> None:
    """Raise ValueError for a time or a size that is not above 0, TypeError for what is no number; None is no limit.

    Times and rates may be fractions, sizes and numbers of things are whole.
    """
    for name, value in limits.items():
        whole = name == "hard_limit" or (name.startswith("max_") and name != "max_lifetime")
        if value is not None and not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{name} is {type(value).__name__}, allowed are numbers above 0 and None")
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, allowed are numbers above 0 and None")
