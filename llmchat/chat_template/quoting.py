"""Where what people wrote stands in a text that a chat template made: messages, tools and the arguments of calls.

Rendered with placeholders in their place, the template shows its own words. Looking for the messages in the text would not do: a message that
spells a mark of the template would be found where the template wrote it.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Range = tuple[int, int]
# What a special token or a placeholder of ours is spelled with. Words of a schema, which templates look at, have none of these.
_RISKY = re.compile(r"[<\[｜\ue000]")
_PLACE = re.compile(r"\ue000(\d+)\ue001")


def mapped(change: Callable[[str], str], value: Any) -> Any:
    """A JSON value with every text in it changed, names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {mapped(change, name): mapped(change, inner) for name, inner in value.items()}
    return [mapped(change, inner) for inner in value] if isinstance(value, list | tuple) else value


class Placeholders:
    """Hands out a placeholder for each text. `messages` come first and are found as they are, or stripped; others as JSON or Python spell them."""

    def __init__(self, messages: Sequence[str]):
        self._messages = list(messages)
        self._others: dict[str, int] = {}

    def of_message(self, index: int) -> str:
        return f"\ue000{index}\ue001"

    def of_text(self, text: str) -> str:
        """The placeholder of a text that could spell a mark; any other text itself."""
        if not _RISKY.search(text):
            return text
        return self.of_message(
            self._others.setdefault(text, len(self._messages) + len(self._others))
        )

    def find(self, shown: str, text: str) -> list[Range] | None:
        """The ranges of `text` at the placeholders of `shown`; None where the template changed what it was given in another way."""
        pieces = _PLACE.split(shown)
        places = list(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))
        others = list(self._others)
        for clean in (str, str.strip):
            spelled = [[clean(message)] for message in self._messages] + [
                _spellings(other) for other in others
            ]
            if (ranges := _matched(text, pieces[0], places, spelled)) is not None:
                return ranges
        return None


def _matched(
    text: str, opening: str, places: list[tuple[int, str]], spelled: list[list[str]]
) -> list[Range] | None:
    ranges, position = list[Range](), len(opening)
    if not text.startswith(opening):
        return None
    for number, after in places:
        fits = (
            one
            for one in spelled[number]
            if text.startswith(one, position) and text.startswith(after, position + len(one))
        )
        found = next(fits, None)
        if found is None:
            return None
        ranges.append((position, position + len(found)))
        position += len(found) + len(after)
    return ranges if position == len(text) else None


def _spellings(text: str) -> list[str]:
    """How a template may write a text of a tool or a call: inside JSON, inside JSON inside JSON, as it is, or as Python shows it."""
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    return list(dict.fromkeys((once, text, twice, text.strip(), repr(text)[1:-1])))
