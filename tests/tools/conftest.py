"""What the tests of tools share: settings in a world of their own."""

from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.tools import ToolSettings


@pytest.fixture
def settings(tmp_path: Path) -> ToolSettings:
    """A root folder `root` in a world of its own."""
    root = tmp_path / "root"
    root.mkdir()
    return ToolSettings(make_world(tmp_path / "home"), root)
