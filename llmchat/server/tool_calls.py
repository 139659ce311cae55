"""Calls of functions in what a model writes.

Most templates with tools teach `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen, SmolLM3); Llama 3 and Mistral write the JSON
bare, as the whole answer, and so does Qwen2.5-Coder, also in a Markdown fence, whatever its template teaches.
"""

import json
import re
import uuid
from collections.abc import Collection
from typing import Any

from llmchat.engines.stream_filters import ThoughtFilter

_MARKS = ("<tool_call>", "</tool_call>")
# How an answer begins that may be JSON as a whole, and what may still become such a beginning.
_OPENING = re.compile(r"\s*(?:```\w*\s*)?[{\[]")
_UNDECIDED = re.compile(r"\s*(?:`{0,2}|```\w*\s*)")
_FENCED = re.compile(r"\s*```\w*\s*(.*?)\s*```\s*", re.DOTALL)


class ToolCallParser:
    """Parts an answer into text to show and calls, piece by piece. names: the functions there are; what calls none of them is text."""

    def __init__(self, template: str, names: Collection[str]):
        self._names = names
        self._marks: ThoughtFilter | None = ThoughtFilter(_MARKS) if _MARKS[0] in template else None
        self._inside = ""
        self._held = self._space = ""
        self._plain = False
        self.called = 0

    def feed(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The text to show now, and the calls that have become whole, in OpenAI's form. White space waits for a word to follow it."""
        shown, calls = self._feed(text)
        shown = self._space + shown
        self._space = shown[len(shown.rstrip()) :]
        return shown.rstrip(), calls

    def _feed(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        if self._marks is None:
            return self._feed_bare(text), []
        shown, calls = "", list[dict[str, Any]]()
        for inside, piece in self._marks.feed(text):
            if inside:
                self._inside += piece
            else:
                ended, more = self._end_call()
                shown, calls = shown + ended + self._feed_bare(piece), calls + more
        return shown, calls

    def flush(self) -> tuple[str, list[dict[str, Any]]]:
        """The rest, at the end of the answer."""
        shown, calls = self._flush()
        return (self._space + shown).rstrip(), calls

    def _flush(self) -> tuple[str, list[dict[str, Any]]]:
        shown, calls = "", list[dict[str, Any]]()
        for inside, piece in self._marks.flush() if self._marks else ():
            if inside:
                self._inside += piece
            else:
                shown += self._feed_bare(piece)
        held, self._held = self._held, ""
        bare = self._calls(fenced[1] if (fenced := _FENCED.fullmatch(held)) else held)
        ended, calls = self._end_call()
        return shown + ("" if bare else held) + ended, bare + calls

    def _feed_bare(self, text: str) -> str:
        """An answer that begins as JSON, bare or in a fence, is held back until it ends."""
        if self._plain:
            return text
        self._held += text
        if _OPENING.match(self._held) or _UNDECIDED.fullmatch(self._held):
            return ""
        self._plain = True
        text, self._held = self._held, ""
        return text

    def _end_call(self) -> tuple[str, list[dict[str, Any]]]:
        written, self._inside = self._inside, ""
        calls = self._calls(written)
        return (f"{_MARKS[0]}{written}{_MARKS[1]}" if written.strip() and not calls else ""), calls

    def _calls(self, written: str) -> list[dict[str, Any]]:
        """The calls in a piece of JSON; none where it is anything else."""
        found = _values(written)
        calls = [call for one in found if (call := self._call(one))]
        if len(calls) != len(found):
            return []
        for call in calls:
            call["index"] = self.called
            self.called += 1
        return calls

    def _call(self, written: Any) -> dict[str, Any] | None:
        if not isinstance(written, dict):
            return None
        name = written.get("name")
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = written.get("arguments", written.get("parameters", {}))
        return {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": name, "arguments": _spelled(arguments)},
        }


def _values(written: str) -> list[Any]:
    """The JSON values of a text, one after the other or in one list; none where there is anything else in it."""
    decoder, found, position = json.JSONDecoder(parse_constant=_refused), list[Any](), 0
    try:
        while position < len(written.rstrip()):
            value, position = decoder.raw_decode(
                written, len(written) - len(written[position:].lstrip())
            )
            found += value if isinstance(value, list) else [value]
    except (ValueError, RecursionError):
        return []
    return found


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _spelled(arguments: Any) -> str:
    """Arguments as JSON text. Half a character (a lone surrogate), which no response can hold, stays escaped."""
    spelled = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return spelled.encode("utf-8", "backslashreplace").decode()
