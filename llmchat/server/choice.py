"""One of the answers to a chat request while it is made, in OpenAI's form."""

from collections.abc import Callable, Sequence
from typing import Any

from llmchat.engines import Chunk, Finish, Token
from llmchat.reply_parser import GenerationRequest, ReplyParser, Thinking, ToolCalls
from llmchat.server.jobs import Event
from llmchat.server.openai_format import tool_call
from llmchat.server.request_documents import Asked, sent_sources


class Choice:
    """One of a request's answers while it is generated. count: the tokens of a text.

    thinking_tokens: known at the end. cached_tokens: of the prompt; 0 while it is unknown.
    """

    def __init__(
        self,
        index: int,
        generation: GenerationRequest,
        parser: ReplyParser,
        count: Callable[[str], int],
        asked: Asked | None = None,
    ):
        self.index = index
        self.sources = sent_sources(generation.window, asked.sources) if asked else []
        self.searched = asked.searched if asked else ()
        self.generation = generation
        self.text = self.thinking = ""
        self.calls: list[dict[str, Any]] = []
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self.thinking_tokens = self.cached_tokens = 0
        self._parser, self._count = parser, count

    def feed(self, events: Sequence[Event]) -> tuple[dict[str, Any], list[Token]]:
        """Add events; returns OpenAI's `delta` (empty if nothing can be shown yet), and the new
        tokens."""
        text = thinking = ""
        tokens: list[Token] = []
        calls: list[dict[str, Any]] = []
        for event in events:
            tokens += event.tokens if isinstance(event, Chunk) else ()
            self.cached_tokens = event.cached_tokens or self.cached_tokens
            for part in self._parser.feed(event):
                if isinstance(part, Thinking):
                    thinking += part.text
                elif isinstance(part, Chunk):
                    text += part.text
                elif isinstance(part, ToolCalls):
                    first = len(self.calls) + len(calls)
                    calls += [tool_call(one, first + n) for n, one in enumerate(part.calls)]
                elif isinstance(part, Finish):
                    self.finish = part
        self.text, self.thinking = self.text + text, self.thinking + thinking
        if self.finish and self.thinking:
            self.thinking_tokens = self._count(self.thinking)
        self.calls += calls
        self.tokens += tokens
        delta = {"reasoning_content": thinking, "content": text, "tool_calls": calls}
        return {name: value for name, value in delta.items() if value}, tokens

    @property
    def finish_reason(self) -> str:
        assert self.finish is not None
        called = self.calls and self.finish.reason == "stop"
        return "tool_calls" if called else self.finish.reason

    def message(self) -> dict[str, Any]:
        calls = [
            {name: value for name, value in call.items() if name != "index"} for call in self.calls
        ]
        return {
            "role": "assistant",
            "content": self.text if self.text or not calls else None,
            "refusal": None,
            **({"reasoning_content": self.thinking} if self.thinking else {}),
            **({"tool_calls": calls} if calls else {}),
            **self.cited(),
        }

    def cited(self) -> dict[str, Any]:
        """Beyond OpenAI's API: the passages of documents that the answer could cite."""
        return {"sources": self.sources} if self.sources else {}

    def window(self) -> dict[str, int]:
        """Beyond OpenAI's API: how full the window is, and how many messages were dropped."""
        window = self.generation.window
        return {
            "limit": window.limit,
            "tokens": window.tokens,
            "sent": window.sent,
            "dropped": window.dropped,
        }
