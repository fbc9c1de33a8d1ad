"""Route selection and mapping expressions: what each chooses, and what is refused before a message comes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.gateway.expressions import NO_JSON, ExpressionError, RequestValue, RouteSelection, parse_message

ACTION = "$request.body.action"
# Expression, message, route key: the first four are AWS's own.
CASES = [
    (ACTION, '{"action":"join"}', "join"),
    ("${request.body.service}/${request.body.action}", '{"service":"chat","action":"join"}', "chat/join"),
    ("${request.body.action}-${request.body.none}", '{"action":"join"}', "join-"),
    (r"\$default", '{"action":"join"}', "$default"),
    ("${request.body.action}", '{"action":"join"}', "join"),
    ("$request.body.action", '{"other":"join"}', ""),
    ("$request.body.a.b.c", '{"a":{"b":{"c":"deep"}}}', "deep"),
    ("$request.body.a.b.c", '{"a":{"b":"text"}}', ""),
    ("$request.body.a.b", '{"a":["b"]}', ""),
    ("$request.body.list[0]", '{"list":["first","second"]}', "first"),
    ("$request.body.list[1].name", '{"list":[{},{"name":"x"}]}', "x"),
    ("$request.body.list[2]", '{"list":["first","second"]}', ""),
    ("$request.body.list[0]", '{"list":{"0":"no"}}', ""),
    ("$request.body[0]", '["join"]', "join"),
    ("$request.body[0][1]", '[["a","b"]]', "b"),
    ("$request.body.list", '{"list":["a","b"]}', "[a, b]"),
    ("$request.body.list", '{"list":[]}', "[]"),
    ("$request.body.list", '{"list":[1,true,null,"x",{"y":[2]}]}', '[1, true, , x, {"y":[2]}]'),
    ("$request.body.o", '{"o":{"a":1,"b":"ü"}}', '{"a":1,"b":"ü"}'),
    (ACTION, '{"action":5}', "5"),
    (ACTION, '{"action":1.5}', "1.5"),
    (ACTION, '{"action":true}', "true"),
    (ACTION, '{"action":null}', ""),
    (ACTION, '{"action":"$request.body.other","other":"x"}', "$request.body.other"),
    (ACTION, '{"action":"a","action":"b"}', "b"),
    (ACTION, '"text"', ""),
    (ACTION, "5", ""),
    ("v1/$request.body.action", '{"action":"join"}', "v1/join"),
    ("$request.body.action-x", '{"action":"join"}', "join-x"),
    ("${request.body.my-action}", '{"my-action":"join"}', "join"),
    ("$request.body.a$request.body.b", '{"a":"x","b":"y"}', "xy"),
    (r"\$${request.body.action}\n", '{"action":"join"}', r"$join\n"),
    ("$request.body.größe", '{"größe":"xl"}', "xl"),
]
REFUSED = [
    "",
    "$",
    "$$",
    "a$b",
    "$request.header.x",
    "$request.body",
    "${request.body}",
    "${request.body.action",
    "$request.body.",
    "$request.body.a.",
    "$request.body.a..b",
    "$request.body..a",
    "$request.body.*",
    "$request.body.a[*]",
    "$request.body.a[-1]",
    "$request.body.a[0:2]",
    "$request.body['a']",
    "${request.body.a[?(@.b)]}",
    "$request.body.a[12345678901]",
    "$context.connectionId",
    "${request.body.1a}",
]
NOT_JSON = ["", "join", "{", '{"action":NaN}', "[" * 100_000, "9" * 10_000, '{"action":"join"} x', "\x00"]


@pytest.mark.parametrize(("expression", "message", "key"), CASES)
def test_a_message_chooses_its_route(expression: str, message: str, key: str) -> None:
    assert RouteSelection(expression).select(parse_message(message)) == key


@pytest.mark.parametrize("expression", REFUSED)
def test_another_expression_is_refused_when_it_is_read(expression: str) -> None:
    with pytest.raises(ExpressionError, match=r"the (expression|path) is"):
        RouteSelection(expression)


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_no_json_is_told_from_what_is(text: str) -> None:
    assert parse_message(text) is NO_JSON
    assert RouteSelection(ACTION).select(NO_JSON) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["action", "a", "b"]) | st.text(), inner),
    max_leaves=20,
)
EXPRESSIONS = [RouteSelection(expression) for expression, _, _ in CASES]


@given(st.text() | JSON.map(json.dumps), st.sampled_from(EXPRESSIONS))
def test_no_message_raises(text: str, selection: RouteSelection) -> None:
    assert isinstance(selection.select(parse_message(text)), str)


@pytest.mark.parametrize("levels", [100, 900, 5000, 50_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_a_deep_message_raises_nothing(levels: int, brackets: str) -> None:
    opening, end = brackets[:-1], brackets[-1]
    message = parse_message(f'{{"action":{opening * levels}1{end * levels}}}')
    assert isinstance(RouteSelection(ACTION).select(message), str)


@given(st.text())
def test_an_expression_is_read_or_refused(expression: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert isinstance(RouteSelection(expression).select({}), str)


EVENT: dict[str, Any] = {
    "requestContext": {"connectionId": "abc=", "connectedAt": 5, "identity": {"sourceIp": "192.0.2.7"}},
    "multiValueHeaders": {"Auth": ["one", "two"]},
    "multiValueQueryStringParameters": {"token": ["x", "y"], "Empty": [""]},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'text'", "text"),
        ("''", ""),
        ("context.connectionId", "abc="),
        ("context.connectedAt", "5"),
        ("context.identity.sourceIp", "192.0.2.7"),
        ("context.none", ""),
        ("route.request.querystring.token", "x"),
        ("route.request.querystring.Token", ""),
        ("route.request.querystring.Empty", ""),
        ("route.request.header.auth", "one"),
        ("route.request.multivalueheader.AUTH", "one,two"),
        ("route.request.multivaluequerystring.token", "x,y"),
    ],
)
def test_a_mapping_finds_its_value_in_a_connect(expression: str, value: str) -> None:
    assert RequestValue(expression, on_connect=True).find(EVENT, NO_JSON) == value


def test_a_mapping_finds_its_value_in_a_message() -> None:
    assert RequestValue("route.request.body.room[0]", on_connect=False).find(EVENT, {"room": ["x"]}) == "x"
    assert RequestValue("route.request.body.room", on_connect=False).find(EVENT, NO_JSON) == ""
    bare = {"requestContext": {"connectionId": "abc="}}
    assert RequestValue("context.connectionId", on_connect=False).find(bare, NO_JSON) == "abc="
    assert RequestValue("route.request.header.auth", on_connect=True).find(bare, NO_JSON) == ""


@pytest.mark.parametrize(
    ("expression", "on_connect"),
    [
        ("", True),
        ("'", True),
        ("text", True),
        ("context", True),
        ("context.a..b", True),
        ("stageVariables.x", True),
        ("route.request.body.room", True),
        ("route.request.header.auth", False),
        ("route.request.querystring.token", False),
        ("route.request.querystring", True),
        ("route.request.path.x", True),
        ("integration.response.body", False),
    ],
)
def test_another_mapping_is_refused(expression: str, on_connect: bool) -> None:
    with pytest.raises(ExpressionError):
        RequestValue(expression, on_connect=on_connect)
