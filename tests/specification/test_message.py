"""The page of one message is true: its picture and its table are those of a message that is sent now."""

from __future__ import annotations

import re

from tests.processes import ROOT
from tests.specification.message import HANDLER, KERNEL, PAGE, PICTURE, draw, filled, lanes, traced
from tests.specification.pages import symbols

CALLS = traced()


def test_the_picture_is_drawn_from_a_run() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(CALLS), "`make docs` draws it"


def test_the_table_is_made_from_a_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == filled(text, CALLS), "`make docs` writes it"


def test_each_function_is_in_its_file() -> None:
    found = [call for call in CALLS if call.file not in {KERNEL, HANDLER}]
    assert len(found) > 20
    assert [call for call in found if call.name not in symbols(ROOT / call.file)] == []


def test_the_way_leads_from_a_read_through_the_handler_to_a_write() -> None:
    kinds = [call.file if call.file in {KERNEL, HANDLER} else "" for call in CALLS]
    assert [kind for kind in kinds if kind] == [KERNEL, KERNEL, HANDLER, KERNEL]
    assert [call.name for call in CALLS if call.file == KERNEL] == ["poll", "readv", "write"]
    assert kinds[-1] == KERNEL
    assert {"rawws/protocol/connection.py", "rawws/protocol/frames.py", "rawws/protocol/masking.py"} <= set(
        lanes(CALLS)
    )


def test_each_call_stands_below_its_caller() -> None:
    for index, call in enumerate(CALLS[1:], 1):
        assert 0 <= call.caller < index
        assert call.depth == CALLS[call.caller].depth + 1


def test_each_call_has_a_row_and_each_change_of_file_an_arrow() -> None:
    picture = draw(CALLS)
    assert picture.count('class="dot"') == len(CALLS)
    assert picture.count('class="arrow"') == sum(call.file != CALLS[call.caller].file for call in CALLS[1:])
    assert set(re.findall(r'class="number"[^>]*>(\d+)<', picture)) == {str(number + 1) for number in range(len(CALLS))}
