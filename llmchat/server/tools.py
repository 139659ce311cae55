"""Calls of functions in what a model writes.

Most templates with tools teach `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen, SmolLM3); Llama 3 and Mistral write the JSON
bare, as the whole answer. Which one it is, the template says.
"""

import json
import uuid
from collections.abc import Collection
from typing import Any

from llmchat.engines.text import ThoughtFilter

_MARKS = ("<tool_call>", "</tool_call>")


class ToolReader:
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
            return self._feed_bare(text)
        shown, calls = "", list[dict[str, Any]]()
        for inside, piece in self._marks.feed(text):
            if inside:
                self._inside += piece
            else:
                ended, more = self._end_call()
                shown, calls = shown + ended + piece, calls + more
        return shown, calls

    def flush(self) -> tuple[str, list[dict[str, Any]]]:
        """The rest, at the end of the answer."""
        shown, calls = self._flush()
        return (self._space + shown).rstrip(), calls

    def _flush(self) -> tuple[str, list[dict[str, Any]]]:
        if self._marks is None:
            held, self._held = self._held, ""
            calls = self._calls(held)
            return ("" if calls else held), calls
        shown = ""
        for inside, piece in self._marks.flush():
            if inside:
                self._inside += piece
            else:
                shown += piece
        ended, calls = self._end_call()
        return ended + shown, calls

    def _feed_bare(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """An answer that begins as JSON is held back until it ends."""
        if self._plain:
            return text, []
        self._held += text
        if self._held.strip() and self._held.lstrip()[0] not in "{[":
            self._plain = True
            text, self._held = self._held, ""
            return text, []
        return "", []

    def _end_call(self) -> tuple[str, list[dict[str, Any]]]:
        written, self._inside = self._inside, ""
        calls = self._calls(written)
        return (f"{_MARKS[0]}{written}{_MARKS[1]}" if written.strip() and not calls else ""), calls

    def _calls(self, written: str) -> list[dict[str, Any]]:
        """The calls in a piece of JSON; none where it is anything else."""
        try:
            found = json.loads(written)
        except ValueError:
            return []
        found = found if isinstance(found, list) else [found]
        calls = [call for one in found if (call := self._call(one))]
        if len(calls) != len(found):
            return []
        for call in calls:
            call["index"] = self.called
            self.called += 1
        return calls

    def _call(self, written: Any) -> dict[str, Any] | None:
        if not isinstance(written, dict) or written.get("name") not in self._names:
            return None
        arguments = written.get("arguments", written.get("parameters", {}))
        spelled = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": {"name": written["name"], "arguments": spelled}}
