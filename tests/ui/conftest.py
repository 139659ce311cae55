"""The REPL that most tests of this folder type into."""

from pathlib import Path

import pytest
from support.repl import make_repl

from llmchat.ui.repl import Repl


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    return make_repl(tmp_path)
