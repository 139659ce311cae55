"""Bracketed pastes as the input line gets them."""

import pytest
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from llmchat.ui.paste_parser import PasteParser

BEGIN, END = "\x1b[200~", "\x1b[201~"


def keys_of(pieces: list[str]) -> list[tuple[str, str]]:
    pressed: list[KeyPress] = []
    parser = PasteParser(pressed.append)
    for piece in pieces:
        parser.feed(piece)
    return [(str(one.key), one.data) for one in pressed]


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_a_paste_is_one_key_however_it_comes(size: int) -> None:
    typed = f"x{BEGIN}one\rtwo \x1b[2J{END}y{BEGIN}{END}z"
    pieces = [typed[start : start + size] for start in range(0, len(typed), size)]
    joined = [key for key in keys_of(pieces) if key[1]]
    if size < 1000:
        pasted = (str(Keys.BracketedPaste), "one\rtwo \x1b[2J")
        assert joined == [("x", "x"), pasted, ("y", "y"), ("z", "z")]
    else:  # pastes that come at once are one
        assert joined == [("x", "x"), (str(Keys.BracketedPaste), "one\rtwo \x1b[2Jy"), ("z", "z")]


def test_an_end_mark_inside_a_paste_sends_nothing() -> None:
    assert keys_of([f"{BEGIN}harmless{END}rm -rf\r{END}"]) == [
        (str(Keys.BracketedPaste), "harmlessrm -rf\r")
    ]


def test_a_large_paste_is_searched_once() -> None:
    parser = PasteParser(lambda key: None)
    parser.feed(BEGIN)
    for _ in range(5000):
        parser.feed("x" * 1024)
    assert len(parser._pieces) >= 5000 and len(parser._last) < 2048 and not parser._paste_buffer
