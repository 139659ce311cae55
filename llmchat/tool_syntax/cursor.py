"""A position in the text of an answer that may still grow."""

import json
import re
from typing import Any

_SPACE = re.compile(r"\s*")
_SPACES = re.compile(r"\s+")
_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|["{}\[\]]', re.DOTALL)
# No name, key or mark of a call is longer than this.
_LONGEST = 400
_SCALAR = re.compile(r"[^\s,\]}<]+")


class Invalid(Exception):
    """The text is not a call."""


class Incomplete(Exception):
    """The text may become a call."""


class Cursor:
    """Reads a text from `position` on. final: no more text follows."""

    def __init__(self, text: str, position: int, final: bool):
        self.text = text
        self.position = position
        self.final = final

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def skip_space(self) -> None:
        if match := _SPACE.match(self.text, self.position):
            self.position = match.end()

    def expect(self, literal: str) -> None:
        """Read a text; where it has white space, there may be any or none.

        Raises Invalid, or Incomplete where the text ends before it differs.
        """
        for part in _SPACES.split(literal) if literal else ():
            self.skip_space()
            self._expect_part(part)

    def accept(self, literal: str) -> bool:
        """Read a text if it follows; returns whether it did. Raises Incomplete."""
        before = self.position
        try:
            self.expect(literal)
        except Invalid:
            self.position = before
            return False
        return True

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Read what a pattern matches here. Raises Incomplete where more text may help."""
        match = pattern.match(self.text, self.position)
        if match is None:
            raise Invalid if len(self.text) - self.position > _LONGEST else self._missing()
        self.position = match.end()
        return match

    def until(self, literal: str) -> str:
        """Read up to a text and over it; returns what precedes it."""
        end = self.text.find(literal, self.position)
        if end < 0:
            raise self._missing()
        found = self.text[self.position : end]
        self.position = end + len(literal)
        return found

    def json_value(self) -> Any:
        """Read one JSON value."""
        self.skip_space()
        end = self._json_end()
        piece = self.text[self.position : end]
        try:
            value = json.loads(piece, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise Invalid from error
        self.position = end
        return value

    def _json_end(self) -> int:
        """The end of the JSON value here, of which only the brackets and quotes are looked at."""
        if self.at_end:
            raise self._missing()
        if self.text[self.position] not in '"{[':
            scalar = _SCALAR.match(self.text, self.position)
            if scalar is None or (scalar.end() == len(self.text) and not self.final):
                raise Invalid if scalar is None else Incomplete
            return scalar.end()
        depth = 0
        for piece in _JSON_PIECE.finditer(self.text, self.position):
            if piece[0] == '"':
                break
            depth += piece[0] in "{["
            depth -= piece[0] in "}]"
            if depth == 0:
                return piece.end()
        raise self._missing()

    def _expect_part(self, part: str) -> None:
        if self.text.startswith(part, self.position):
            self.position += len(part)
        elif part.startswith(self.text[self.position :]):
            raise self._missing()
        else:
            raise Invalid

    def _missing(self) -> Exception:
        return Invalid() if self.final else Incomplete()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
