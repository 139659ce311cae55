"""Parses the stream of an answer in OpenAI's format into pieces of text."""

import json
from collections.abc import Generator, Iterator
from typing import Any

from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.tools import CallCollector
from llmchat.engines.sse import Event, events
from llmchat.errors import NetworkError

_REASONS = {"length": "length", "max_tokens": "length"}


class StreamParser:
    """Parses one response. Afterwards `reason` is how the answer ended, and the token counts are
    the server's, or None if it gives none; `calls` has the tool calls.

    Reasoning that the server reports separately is put between <think> marks, as models write it.
    """

    def __init__(self, connection: Connection):
        self._connection = connection
        self._thinking = False
        self._held = ""
        self._done = False
        self.calls = CallCollector()
        self.reason = ""
        self.prompt_tokens: int | None = None
        self.cached_tokens = 0
        self.reply_tokens: int | None = None

    def text(self, kind: str, pieces: Iterator[bytes]) -> Generator[str]:
        """The pieces of text, none of them empty.

        Raises the error of an error event, and NetworkError for an answer without an end.
        """
        if kind.startswith("application/json"):
            # A server that does not stream.
            body = b"".join(pieces).decode("utf-8", "replace")
            yield from self._read(_parsed(body, self._connection))
        else:
            for event in events(pieces):
                if event.data.strip() == "[DONE]":
                    self._done = True
                    break
                yield from self._read(self._table(event))
        if rest := self._closed():
            yield rest
        if not (self.reason or self._done):
            raise NetworkError(
                f"{self._connection.host} ended the answer in the middle",
                "ask again, or `/continue` it",
            )

    def _table(self, event: Event) -> dict[str, Any]:
        table = _parsed(event.data, self._connection)
        return {"error": table} if event.name == "error" and "error" not in table else table

    def _read(self, table: dict[str, Any]) -> Iterator[str]:
        if table.get("error"):
            code = table["error"].get("code") if isinstance(table["error"], dict) else None
            raise self._connection.error_of(code if isinstance(code, int) else 500, table)
        self._count(table.get("usage") or {})
        for choice in (table.get("choices") or [])[:1]:
            message = choice.get("delta") or choice.get("message") or {}
            thought = message.get("reasoning_content") or message.get("reasoning") or ""
            if thought and not self._thinking:
                self._thinking, thought = True, f"<think>{thought}"
            text = message.get("content") or choice.get("text") or ""
            if text and self._thinking:
                self._thinking, text = False, f"</think>{text}"
            self.calls.feed(message.get("tool_calls"))
            if whole := self._whole(thought + text):
                yield whole
            if reason := choice.get("finish_reason"):
                self.reason = _REASONS.get(reason, "stop")

    def _count(self, usage: dict[str, Any]) -> None:
        if isinstance(usage.get("prompt_tokens"), int):
            self.prompt_tokens = usage["prompt_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            self.cached_tokens = details.get("cached_tokens") or 0
        if isinstance(usage.get("completion_tokens"), int):
            self.reply_tokens = usage["completion_tokens"]

    def _whole(self, text: str) -> str:
        """The text without a surrogate whose other half is still to come.

        Some servers split a character between the two surrogates that JSON writes it with; one that
        stays alone becomes U+FFFD.
        """
        text, self._held = self._held + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _closed(self) -> str:
        rest = "\ufffd" if self._held else ""
        return rest + ("</think>" if self._thinking else "")


def _parsed(text: str, connection: Connection) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise NetworkError(
            f"{connection.host} sent something else than an answer: {' '.join(text.split())[:80]!r}"
        )
    return table
