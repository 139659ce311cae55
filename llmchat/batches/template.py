"""Fills a prompt with the fields of a line: `Summarise: {text}`."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llmchat.errors import UsageError, did_you_mean

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A text with `{field}`; `{{` and `}}` are braces. Raises UsageError for a lone brace."""

    def __init__(self, text: str):
        self._text = text
        for found in _PART.finditer(text):
            if found[0] in "{}":
                raise UsageError(
                    f"the template has a lone `{found[0]}`",
                    "`{name}` is a field; `{{` and `}}` are braces",
                )
        if not self.fields:
            raise UsageError(
                "the template has no field, so every prompt would be the same",
                "`{name}` stands for the field or column `name`",
            )

    @property
    def fields(self) -> list[str]:
        return [found[1].strip() for found in _PART.finditer(self._text) if found[1] is not None]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with values; a value that is not a text is written as JSON.

        Raises UsageError for a field that is missing.
        """
        return _PART.sub(lambda found: self._part(found, values), self._text)

    def _part(self, found: "re.Match[str]", values: Mapping[str, Any]) -> str:
        if found[1] is None:
            return found[0][0]
        name = found[1].strip()
        if name not in values:
            hint = did_you_mean(name, list(values)) or f"it has {', '.join(values) or 'none'}"
            raise UsageError(f"it has no field `{name}`", hint)
        return as_text(values[name])


def as_text(value: Any) -> str:
    """A value in a prompt: a text as it is, any other one as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
