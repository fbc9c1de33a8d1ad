"""Options: what the options of servers and clients have in common."""

from __future__ import annotations

from typing import Any

__all__ = ["check_limits"]


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
