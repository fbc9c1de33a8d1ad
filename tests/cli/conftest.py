"""The folder that the commands run in."""

from pathlib import Path

import pytest

from tests.cli.commands import fill


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return fill(tmp_path)
