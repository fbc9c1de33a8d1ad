"""Authorizers: what a Lambda authorizer answered to whether a client may connect (API Gateway, "Lambda authorizers").

Its answer has `principalId`, `policyDocument` and `context`. In a policy, an explicit Deny goes before every Allow, and
what nothing allows is denied (IAM, "Policy evaluation logic"). `Condition`, `NotAction` and `NotResource` are not
understood: such a statement allows nothing, and denies what it may.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .expressions import parse_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .calls import CallResult

__all__ = ["AuthorizerVerdict", "judge_authorizer"]

ACTION: Final = "execute-api:Invoke"
# Of all that an authorizer says, in bytes: as API Gateway has it.
MAX_CONTEXT: Final = 8192
NOT_UNDERSTOOD: Final = ("Condition", "NotAction", "NotResource", "NotPrincipal")


class AuthorizerVerdict(NamedTuple):
    """What becomes of a handshake: 200 lets it in, and else its status; and what is told of the client from then on."""

    status: int
    context: Mapping[str, Any] = {}


UNAUTHORIZED: Final = AuthorizerVerdict(401)
FORBIDDEN: Final = AuthorizerVerdict(403)
FAILED: Final = AuthorizerVerdict(500)


def judge_authorizer(result: CallResult, arn: str) -> AuthorizerVerdict:
    """Return what an answer says of a client that asks for `arn`."""
    # "If the authorizer raises "Unauthorized", the client gets a 401": the word is the whole message.
    if result.raised == "Unauthorized" or result.status == 401:
        return UNAUTHORIZED
    if result.status == 403:
        return FORBIDDEN
    said = parse_message(result.text) if result.accepted else None
    if not isinstance(said, dict):
        return FAILED
    principal, policy, context = said.get("principalId"), said.get("policyDocument"), said.get("context") or {}
    if not isinstance(principal, str) or not principal:
        return FORBIDDEN
    if not isinstance(policy, dict) or not isinstance(context, dict):
        return FAILED
    if not all(isinstance(value, (str, int, float, bool)) for value in context.values()):
        return FAILED
    if len(json.dumps(context, ensure_ascii=False).encode("utf-8", "replace")) > MAX_CONTEXT:
        return FAILED
    if not allows(policy, arn):
        return FORBIDDEN
    return AuthorizerVerdict(200, {**context, "principalId": principal})


def allows(policy: Mapping[str, Any], arn: str) -> bool:
    """Tell whether a policy allows to call what has this ARN."""
    statements = policy.get("Statement")
    allowed = False
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict):
            return False
        understood = not any(name in statement for name in NOT_UNDERSTOOD)
        about = fits(statement.get("Action"), ACTION, re.IGNORECASE) and fits(statement.get("Resource"), arn)
        if statement.get("Effect") != "Allow":
            if about or not understood:
                return False
        elif about and understood:
            allowed = True
    return allowed


def fits(patterns: Any, text: str, flags: int = 0) -> bool:
    """Tell whether one of the patterns of a policy fits a text: `*` is any characters, `?` is one."""
    each: Iterable[Any] = patterns if isinstance(patterns, list) else [patterns]
    return any(isinstance(pattern, str) and _fits(pattern, text, flags) for pattern in each)


def _fits(pattern: str, text: str, flags: int) -> bool:
    shape = re.escape(re.sub(r"\*+", "*", pattern)).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(shape, text, flags) is not None
