"""The responses that `process_request` makes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

import rawws


def test_a_str_is_plain_text_in_utf8() -> None:
    response = rawws.Response(200, "grüße")
    assert (response.status, response.body) == (200, "grüße".encode())
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_bytes_have_no_type_of_their_own() -> None:
    assert "Content-Type" not in rawws.Response(200, b"x").headers
    assert rawws.Response(200, b"x", content_type="image/png").headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    "headers", [{"X-Name": "a", "content-type": "text/html"}, [("X-Name", "a"), ("content-type", "text/html")]]
)
def test_headers_may_be_a_mapping_or_pairs_and_keep_their_content_type(headers: Any) -> None:
    response = rawws.Response(200, "<p>", headers)
    assert response.headers["X-Name"] == "a"
    assert response.headers.get_all("Content-Type") == ["text/html"]


def test_a_response_without_arguments_is_an_empty_200() -> None:
    assert rawws.Response() == rawws.Response(200, b"")
    assert rawws.Response(HTTPStatus.NO_CONTENT).status == 204


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, -1])
def test_a_status_that_is_none_of_a_final_response_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=f"status is {status}, allowed are 200 to 599"):
        rawws.Response(status)


@pytest.mark.parametrize("body", [None, 5, ["x"], {"a": 1}])
def test_another_body_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match=f"body is {type(body).__name__}, allowed are str and bytes"):
        rawws.Response(200, body)


@pytest.mark.parametrize("status", [200, 299, 418, 499, 599])
def test_every_final_status_is_taken_with_or_without_a_name(status: int) -> None:
    assert rawws.Response(status, "x").status == status
