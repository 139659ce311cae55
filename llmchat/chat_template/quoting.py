"""Find the messages, tools and call arguments in the text that a chat template rendered.

The template is rendered a second time with placeholders in place of what people wrote, which
shows the template's own words. Searching the text for the messages would not do: a message that
spells a mark of the template would be found where the template wrote that mark.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Range = tuple[int, int]

# The first characters of special tokens and of our placeholders. The words of a schema, which
# templates inspect, contain none of them.
_RISKY = re.compile(r"[<\[｜\ue000]")
_PLACEHOLDER = re.compile(r"\ue000(\d+)\ue001")


def map_texts(change: Callable[[str], str], value: Any) -> Any:
    """A JSON value with `change` applied to every string in it, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {map_texts(change, name): map_texts(change, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(change, inner) for inner in value]
    return value


class Placeholders:
    """Hands out a placeholder for each text and finds the texts again.

    Messages are found as they are, or stripped; other texts also as JSON or Python writes them.
    """

    def __init__(self, messages: Sequence[str]):
        self._messages = list(messages)
        self._others: dict[str, int] = {}

    def of_message(self, index: int) -> str:
        """The placeholder of the message at `index`."""
        return f"\ue000{index}\ue001"

    def of_text(self, text: str) -> str:
        """The placeholder of a text that could spell a mark; any other text unchanged."""
        if not _RISKY.search(text):
            return text
        number = len(self._messages) + len(self._others)
        return self.of_message(self._others.setdefault(text, number))

    def find(self, with_placeholders: str, text: str) -> list[Range] | None:
        """The ranges of `text` where the placeholders are in the other rendering.

        None if the template changed the texts in another way than the known ones.
        """
        opening, *rest = _PLACEHOLDER.split(with_placeholders)
        places = list(zip(map(int, rest[::2]), rest[1::2], strict=True))
        others = [_spellings(other) for other in self._others]
        for clean in (str, str.strip):
            messages = [[clean(message)] for message in self._messages]
            ranges = _match(text, opening, places, messages + others)
            if ranges is not None:
                return ranges
        return None


def _match(
    text: str, opening: str, places: list[tuple[int, str]], spellings: list[list[str]]
) -> list[Range] | None:
    """places: the number of each placeholder, and the template's text after it."""
    if not text.startswith(opening):
        return None
    ranges, position = list[Range](), len(opening)
    for number, after in places:
        fitting = (
            spelling
            for spelling in spellings[number]
            if text.startswith(spelling, position)
            and text.startswith(after, position + len(spelling))
        )
        found = next(fitting, None)
        if found is None:
            return None
        ranges.append((position, position + len(found)))
        position += len(found) + len(after)
    return ranges if position == len(text) else None


def _spellings(text: str) -> list[str]:
    """How a template may write the text of a tool or a call.

    Inside JSON, as it is, inside JSON inside JSON, stripped, or as Python's repr writes it.
    """
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    return list(dict.fromkeys((once, text, twice, text.strip(), repr(text)[1:-1])))
