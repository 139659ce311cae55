"""Parses the tool calls in a model's output.

Most templates with tools teach `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes,
Qwen, SmolLM3). Llama 3 and Mistral write bare JSON as the whole answer. So does Qwen2.5-Coder,
sometimes in a Markdown fence, although its template teaches the tags.
"""

import json
import re
import uuid
from collections.abc import Collection
from typing import Any

from llmchat.engines.stream_filters import ThoughtFilter

Calls = list[dict[str, Any]]
_TAGS = ("<tool_call>", "</tool_call>")
# The start of an answer that may be JSON as a whole, and text that may still become such a start.
_JSON_START = re.compile(r"\s*(?:```\w*\s*)?[{\[]")
_UNDECIDED = re.compile(r"\s*(?:`{0,2}|```\w*\s*)")
_FENCED = re.compile(r"\s*```\w*\s*(.*?)\s*```\s*", re.DOTALL)


class ToolCallParser:
    """Separates an answer, piece by piece, into visible text and tool calls.

    names: of the available functions; anything that calls none of them is text.
    """

    def __init__(self, template: str, names: Collection[str]):
        self._names = names
        self._tags: ThoughtFilter | None = ThoughtFilter(_TAGS) if _TAGS[0] in template else None
        self._tagged = ""
        self._held = self._space = ""
        self._is_text = False
        self.count = 0

    def feed(self, text: str) -> tuple[str, Calls]:
        """The text that can be shown now, and the calls that are complete, in OpenAI's form.

        White space is held back until other text follows it.
        """
        visible, calls = self._feed(text)
        visible = self._space + visible
        self._space = visible[len(visible.rstrip()) :]
        return visible.rstrip(), calls

    def _feed(self, text: str) -> tuple[str, Calls]:
        if self._tags is None:
            return self._feed_bare(text), []
        visible, calls = "", Calls()
        for is_tagged, piece in self._tags.feed(text):
            if is_tagged:
                self._tagged += piece
            else:
                rest, new_calls = self._end_tag()
                visible, calls = visible + rest + self._feed_bare(piece), calls + new_calls
        return visible, calls

    def flush(self) -> tuple[str, Calls]:
        """The rest, at the end of the answer."""
        visible, calls = self._flush()
        return (self._space + visible).rstrip(), calls

    def _flush(self) -> tuple[str, Calls]:
        visible = ""
        for is_tagged, piece in self._tags.flush() if self._tags else ():
            if is_tagged:
                self._tagged += piece
            else:
                visible += self._feed_bare(piece)
        held, self._held = self._held, ""
        bare_calls = self._parse(fenced[1] if (fenced := _FENCED.fullmatch(held)) else held)
        rest, calls = self._end_tag()
        return visible + ("" if bare_calls else held) + rest, bare_calls + calls

    def _feed_bare(self, text: str) -> str:
        """Text that can be shown. An answer that starts as JSON is held back until its end."""
        if self._is_text:
            return text
        self._held += text
        if _JSON_START.match(self._held) or _UNDECIDED.fullmatch(self._held):
            return ""
        self._is_text = True
        text, self._held = self._held, ""
        return text

    def _end_tag(self) -> tuple[str, Calls]:
        """The calls between two tags, or their text if they contain none."""
        tagged, self._tagged = self._tagged, ""
        calls = self._parse(tagged)
        is_text = tagged.strip() and not calls
        return (f"{_TAGS[0]}{tagged}{_TAGS[1]}" if is_text else ""), calls

    def _parse(self, text: str) -> Calls:
        """The calls in a text; none if it contains anything else."""
        values = _json_values(text)
        calls = [call for value in values if (call := self._call(value))]
        if len(calls) != len(values):
            return []
        for call in calls:
            call["index"] = self.count
            self.count += 1
        return calls

    def _call(self, value: Any) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        name = value.get("name")
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        return {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": name, "arguments": _to_json(arguments)},
        }


def _json_values(text: str) -> list[Any]:
    """The JSON values of a text, in sequence or in a list; none if it contains anything else."""
    decoder, values, position = json.JSONDecoder(parse_constant=_refuse), list[Any](), 0
    try:
        while position < len(text.rstrip()):
            start = len(text) - len(text[position:].lstrip())
            value, position = decoder.raw_decode(text, start)
            values += value if isinstance(value, list) else [value]
    except (ValueError, RecursionError):
        return []
    return values


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _to_json(arguments: Any) -> str:
    """Arguments as JSON text. Lone surrogates, which UTF-8 cannot encode, are escaped."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()
