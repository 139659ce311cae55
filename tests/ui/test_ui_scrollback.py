"""A streamed answer leaves each line once in tmux's scrollback, even if the window is resized."""

import json
import sys
from pathlib import Path

import pytest
from support.tmux_sessions import needs_tmux, tmux

from llmchat.ui.markdown import rows_of

DRIVER = Path(__file__).parents[1] / "support" / "drive_tmux.py"
CODE = (
    "Look:\n\n```python\n" + "".join(f"line_{n} = {n}\n" for n in range(60)) + "```\n\nThat is all."
)
WORDS = " ".join(f"word{n}" for n in range(150))
TABLE = (
    "| city | people |\n|---|---:|\n" + "".join(f"| City{n} | {n} |\n" for n in range(40)) + "\nend"
)
LIST = "".join(
    f"{n}. item{n} with **bold** text that is folded in a narrow window\n" for n in range(1, 40)
)
POEM = "\n".join(f"verse{n} of a poem" for n in range(40)) + "\n\nend"
ANSWERS = [CODE, WORDS, TABLE, LIST, POEM]

pytestmark = needs_tmux


def pieces(text: str, size: int = 9) -> list[object]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def streamed(
    tmp_path: Path, columns: int, rows: int, answers: list[list[object]]
) -> list[list[str]]:
    """For each answer its rows, in the scrollback or on the screen, when all were drawn."""
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    with tmux() as server:
        server.start(columns, rows, sys.executable, str(DRIVER), str(tmp_path / "answers.json"))
        server.run("wait-for", "drawn")
        shown = server.rows()
    ends = [index for index, row in enumerate(shown) if row == "END OF ANSWER"]
    assert len(ends) == len(answers)
    return [
        shown[start:end] for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 15)])
def test_each_row_is_in_the_scrollback_once(columns: int, rows: int, tmp_path: Path) -> None:
    shown = streamed(tmp_path, columns, rows, [pieces(text) for text in ANSWERS])
    for text, seen in zip(ANSWERS, shown, strict=True):
        assert seen == [row.plain for row in rows_of(text, columns)]


def test_a_long_code_block_is_in_the_scrollback_once(tmp_path: Path) -> None:
    assert streamed(tmp_path, 80, 24, [pieces(CODE)]) == [[row.plain for row in rows_of(CODE, 80)]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [[(40, 15), (120, 40), (80, 24)], [(100, 12), (50, 12), (60, 30)]]
)
def test_resizes_in_the_middle_repeat_nothing(sizes: list[tuple[int, int]], tmp_path: Path) -> None:
    shown = streamed(tmp_path, 80, 24, [with_resizes(pieces(text), sizes) for text in ANSWERS])
    for text, seen in zip(ANSWERS, shown, strict=True):
        printed = [row.plain for row in rows_of(text, 200)]
        assert "".join("".join(seen).split()) == "".join("".join(printed).split())


def with_resizes(steps: list[object], sizes: list[tuple[int, int]]) -> list[object]:
    """The steps with the sizes spread evenly among them."""
    part = len(steps) // (len(sizes) + 1) + 1
    mixed = list(steps[:part])
    for number, size in enumerate(sizes, 1):
        mixed += [size, *steps[number * part : (number + 1) * part]]
    return mixed
