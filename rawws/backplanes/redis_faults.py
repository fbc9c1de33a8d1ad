"""Redis faults: what a Redis answers in the place of what it was asked for, to whose fault that is."""

from __future__ import annotations

from rawws.topics.backplane import BackplaneAway

from .redis_slots import key_slot

__all__ = ["is_about", "is_redirect", "is_topics_fault", "lack_of", "redirect_reason"]


def is_topics_fault(error: BaseException) -> bool:
    """Tell whether a Redis that works refused a command: for lack of memory or of a right, or for what stands there.

    One that serves nobody is away: it forgot the scripts, a replica is where the master was, which is looked for, or it
    takes no writes, because it cannot save its data.
    """
    from redis.exceptions import (  # noqa: PLC0415
        ClusterDownError,
        MasterDownError,
        NoScriptError,
        ReadOnlyError,
        ResponseError,
    )

    serves_nobody = (ClusterDownError, MasterDownError, NoScriptError, ReadOnlyError)
    # Redis 6.2 says so behind the name of the script.
    takes_nothing = "READONLY" in str(error) or "MISCONF" in str(error)
    return isinstance(error, ResponseError) and not isinstance(error, serves_nobody) and not takes_nothing


def is_redirect(error: BaseException) -> bool:
    """Tell whether a node of a cluster says that it does not serve a slot: not any more, not yet, or not whole."""
    from redis.exceptions import AskError, ClusterDownError, TryAgainError  # noqa: PLC0415

    # One that moved is among those to ask for.
    return isinstance(error, (AskError, ClusterDownError, TryAgainError))


def is_about(error: BaseException, channel: str) -> bool:
    """Tell whether such an answer, if it names a slot, names that of a channel."""
    slot = getattr(error, "slot_id", None)
    return slot is None or slot == key_slot(channel)


def redirect_reason(error: BaseException) -> str:
    """Return such an answer for a log."""
    from redis.exceptions import AskError, MovedError  # noqa: PLC0415

    if isinstance(error, AskError):
        moved = "moved" if isinstance(error, MovedError) else "is on its way"
        return f"slot {error.slot_id} {moved} to {error.host}:{error.port}"
    return str(error)


def lack_of(commands: list[str], prefix: str, channels: str) -> BackplaneAway:
    """Return the error of a user of a Redis who may not do what is needed, with what allows it."""
    # Where nothing is sharded, the same verb is asked for twice.
    named = list(dict.fromkeys(commands))
    rights = " ".join([f"+{command}" for command in named])
    return BackplaneAway(
        f"the user of this Redis has no permissions for {', '.join(named)} on the keys {prefix}:* and the channels"
        f" {channels}:*, which this gives: ACL SETUSER ... {rights} ~{prefix}:* &{channels}:*"
    )
