"""What clients of before said is answered as it was: each recorded dialogue is said to the hub of today."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.topics.recorded import Dialogue

DIALOGUES = {
    file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for file in sorted(Path(__file__).with_name("dialogues").glob("*.jsonl"))
}


@pytest.mark.parametrize("callbacks", [False, True], ids=["coroutine", "callbacks"])
@pytest.mark.parametrize("lines", DIALOGUES.values(), ids=DIALOGUES)
async def test_a_recorded_dialogue_comes_out_as_it_did(lines: list[dict[str, Any]], callbacks: bool) -> None:
    async with AsyncExitStack() as stack:
        dialogue = Dialogue(stack, callbacks=callbacks)
        await dialogue.start()
        for line in lines:
            dialogue.check(line, await dialogue.take(line))


async def test_a_dialogue_that_comes_out_otherwise_is_noticed() -> None:
    async with AsyncExitStack() as stack:
        dialogue = Dialogue(stack)
        dialogue.check({"id": 1, "cursor": "0f455580f227:0"}, {"id": 1, "cursor": "aaaaaaaaaaaa:0", "new": True})
        for wanted, found in (
            ({"id": 1, "error": "limit"}, {"id": 1}),
            ({"cursor": "0f455580f227:1"}, {"cursor": "bbbbbbbbbbbb:1"}),
            ({"cursor": "0f455580f227:1"}, {"cursor": "aaaaaaaaaaaa:2"}),
            ([1, 2], [1]),
            (True, False),
        ):
            with pytest.raises(AssertionError):
                dialogue.check(wanted, found)


def test_there_is_a_recorded_dialogue() -> None:
    assert DIALOGUES
