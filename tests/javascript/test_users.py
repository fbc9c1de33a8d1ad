"""rawws.js and users: it renews their tokens, shows who is there, and says what the server ended."""

from __future__ import annotations

import json
import sys

import pytest

from tests.javascript.parts import HERE, node
from tests.processes import LOOPBACK, Process, free_port


@pytest.mark.parametrize("version", ["20", "22", "24"])
def test_tokens_are_renewed_and_users_are_who_the_server_knows(version: str) -> None:
    with Process([sys.executable, HERE / "users.py", str(port := free_port())], listens=port):
        with node("users.mjs", f"http://{LOOPBACK}:{port}", version=version) as program:
            found = json.loads(program.result(60))
    assert found == {
        "users": ["ann Ann", "bob Bob"],
        "same": 3,
        "raised": "no login",
        "eve": ["websocket", 401],
        "states": [["websocket"], ["websocket"]],
        "kept": True,
        "changes": ["leave"],
        "left": ["ann", "bob"],
        "errors": ["unsubscribed enough"],
        "closed": "1",
        "back": [401, "websocket"],
        "refusals": ["401 the token is about to expire", "401 the server answered 401"],
    }
