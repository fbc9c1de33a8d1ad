"""Header lists: field values to tokens and extensions, and back (RFC 6455 section 9.1, RFC 9110 section 5.6).

Laws: linear time, for a value is split and never searched back and forth. And no tokenizer for quoted strings: what is
quoted must itself be a token, which has no `,`, `;` or `=`; so a value that a split would cut inside of quotes is
malformed in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from rawws.errors import HandshakeError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Extension", "excerpt", "format_extensions", "is_token", "parse_extensions", "parse_list", "parse_tokens"]

# An extension and its parameters; a parameter without a value has None.
Extension: TypeAlias = tuple[str, list[tuple[str, str | None]]]

# RFC 9110 section 5.6.2: DIGIT and tchar. Spelled out: str.isdigit() and its kin take those of all scripts.
DIGITS = "0123456789"
TCHARS = "!#$%&'*+-.^_`|~" + DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# How much of a hostile value an error message repeats: enough to recognise it, too little to flood a log.
_EXCERPT = 64


def is_token(text: object) -> TypeGuard[str]:
    """Tell whether `text` is a str and a token (RFC 9110 section 5.6.2)."""
    return isinstance(text, str) and text != "" and not text.strip(TCHARS)


def excerpt(text: str) -> str:
    """Quote `text` for an error message: control characters escaped, cut after 64 characters."""
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")


def parse_list(values: Sequence[str], header: str) -> list[str]:
    """Split the values of all `header` lines at commas; raises `HandshakeError` (400) if there are but empty ones."""
    # RFC 9110 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements"; what fits into a
    # head is reasonable.
    elements = [stripped for element in ",".join(values).split(",") if (stripped := element.strip(" \t"))]
    if values and not elements:
        raise HandshakeError(400, f"the {header} header is empty, at least one element is needed")
    return elements


def parse_tokens(values: Sequence[str], header: str, also: str = "") -> list[str]:
    """Split the values into tokens, in which the characters of `also` may be, too; raises `HandshakeError` (400)."""
    tokens = parse_list(values, header) if values else []
    for token in tokens:
        if token.strip(TCHARS + also):
            raise HandshakeError(400, f"{excerpt(token)} in the {header} header is not a token")
    return tokens


def parse_extensions(header_value: str, header: str = "Sec-WebSocket-Extensions") -> list[Extension]:
    """Parse the value of Sec-WebSocket-Extensions, of several lines joined by commas; raises `HandshakeError` (400).

    Repeated extensions are alternatives in order of preference; of repeated parameters the extension must think.
    """
    # RFC 6455 9.1: "If a value is received [...] that does not conform to the ABNF below, the recipient of such
    # malformed data MUST immediately _Fail the WebSocket Connection_."
    extensions: list[Extension] = []
    for element in parse_list([header_value], header):
        name, *parameters = element.split(";")
        name = _check_token(name.strip(" \t"), header)
        extensions.append((name, [_parse_parameter(parameter, header) for parameter in parameters]))
    return extensions


def format_extensions(extensions: Iterable[Extension]) -> str:
    """Write the value of Sec-WebSocket-Extensions; raises `LocalProtocolError` on what is not a token."""
    elements = []
    for name, parameters in extensions:
        for text in (name, *(key for key, _ in parameters), *(value for _, value in parameters if value is not None)):
            if not is_token(text):
                raise LocalProtocolError(f"{text!r} in an extension is not a token")
        elements.append("; ".join([name, *(key if value is None else f"{key}={value}" for key, value in parameters)]))
    return ", ".join(elements)


def _check_token(text: str, header: str) -> str:
    if not is_token(text):
        raise HandshakeError(400, f"{excerpt(text)} in the {header} header is not a token")
    return text


def _parse_parameter(parameter: str, header: str) -> tuple[str, str | None]:
    name, equals, value = parameter.partition("=")
    # RFC 6455 9.1 refers to the "implied *LWS rule" of RFC 2616: spaces may be around each token.
    name, value = _check_token(name.strip(" \t"), header), value.strip(" \t")
    if not equals:
        return name, None
    if value[:1] != '"':
        return name, _check_token(value, header)
    # Each backslash escapes the character behind it, and none escapes a backslash, which is not part of a token.
    if len(value) == 1 or value[-1] != '"' or "\\\\" in value or value[-2] == "\\":
        raise HandshakeError(400, f"{excerpt(value)} in the {header} header is not a quoted token")
    # RFC 6455 9.1: "the value after quoted-string unescaping MUST conform to the 'token' ABNF."
    return name, _check_token(value[1:-1].replace("\\", ""), header)
