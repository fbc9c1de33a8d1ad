"""Header lists: field values to tokens and extensions, and back (RFC 6455 section 9.1, RFC 9110 section 5.6).

Laws:
1. Linear time: a value is split at commas, semicolons and equals signs, each octet is looked at a fixed number of
   times, and there is no regular expression.
2. No tokenizer for quoted strings is needed: what is quoted must itself be a token, a token holds neither `,` nor `;`
   nor `=`, and so a value that such a split would cut in the wrong place is malformed in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rawws.errors import HandshakeError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Extension", "excerpt", "format_extensions", "is_token", "parse_extensions", "parse_list", "parse_tokens"]

# An extension and its parameters; a parameter without a value has None.
Extension: TypeAlias = tuple[str, list[tuple[str, str | None]]]

# RFC 9110 section 5.6.2: DIGIT and tchar. Spelled out: str.isdigit() and its kin take those of all scripts.
DIGITS = "0123456789"
TCHARS = "!#$%&'*+-.^_`|~" + DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# How much of a hostile value an error message repeats: enough to recognise it, too little to flood a log.
_EXCERPT = 64


def is_token(text: str) -> bool:
    """Say whether `text` is a token of RFC 9110 section 5.6.2."""
    return bool(text) and not text.strip(TCHARS)


def excerpt(text: str) -> str:
    """Quote `text` for an error message: control characters escaped, cut after 64 characters."""
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")


def parse_list(values: Iterable[str], header: str) -> list[str]:
    """Split the comma-separated values of all `header` lines, empty elements left out; at least one must remain.

    Raises `HandshakeError` with status 400.
    """
    # RFC 9110 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements". The size of a
    # head is bounded, so any number that fits into one is reasonable.
    elements = [stripped for element in ",".join(values).split(",") if (stripped := element.strip(" \t"))]
    if not elements:
        raise HandshakeError(400, f"the {header} header is empty, at least one element is needed")
    return elements


def parse_tokens(values: Iterable[str], header: str) -> list[str]:
    """Parse the values of all `header` lines as a list of tokens, as in Connection and Sec-WebSocket-Protocol.

    Raises `HandshakeError` with status 400.
    """
    tokens = parse_list(values, header)
    for token in tokens:
        _check_token(token, header)
    return tokens


def parse_extensions(header_value: str, header: str = "Sec-WebSocket-Extensions") -> list[Extension]:
    """Parse the value of Sec-WebSocket-Extensions; several header lines are joined with a comma before.

    Repeated extensions are alternatives in order of preference, and stay; what a repeated parameter means is for the
    extension to say, so they stay as well. Raises `HandshakeError` with status 400.
    """
    # RFC 6455 9.1: "If a value is received by either the client or the server during negotiation that does not conform
    # to the ABNF below, the recipient of such malformed data MUST immediately _Fail the WebSocket Connection_."
    extensions: list[Extension] = []
    for element in parse_list((header_value,), header):
        name, *parameters = element.split(";")
        name = _check_token(name.strip(" \t"), header)
        extensions.append((name, [_parse_parameter(parameter, header) for parameter in parameters]))
    return extensions


def format_extensions(extensions: Iterable[Extension]) -> str:
    """Write the value of Sec-WebSocket-Extensions; raises `LocalProtocolError` on what is not a token."""
    elements = []
    for name, parameters in extensions:
        parts = [name] + [key if value is None else f"{key}={value}" for key, value in parameters]
        for text in (name, *(text for pair in parameters for text in pair if text is not None)):
            if not is_token(text):
                raise LocalProtocolError(f"{text!r} in an extension is not a token")
        elements.append("; ".join(parts))
    return ", ".join(elements)


def _check_token(text: str, header: str) -> str:
    if not is_token(text):
        raise HandshakeError(400, f"{excerpt(text)} in the {header} header is not a token")
    return text


def _parse_parameter(parameter: str, header: str) -> tuple[str, str | None]:
    name, equals, value = parameter.partition("=")
    # RFC 6455 9.1: "this section is using ABNF syntax/rules from [RFC2616], including the "implied *LWS rule"", so
    # spaces may stand on both sides of the equals sign.
    name = _check_token(name.strip(" \t"), header)
    if not equals:
        return name, None
    value = value.strip(" \t")
    if value[:1] == '"':
        if len(value) == 1 or value[-1] != '"' or "\\\\" in value or value[-2] == "\\":
            raise HandshakeError(400, f"{excerpt(value)} in the {header} header is not a quoted token")
        # Each backslash escapes the character behind it, and none escapes a backslash, which is not part of a token.
        value = value[1:-1].replace("\\", "")
    # RFC 6455 9.1: "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform
    # to the 'token' ABNF."
    return name, _check_token(value, header)
