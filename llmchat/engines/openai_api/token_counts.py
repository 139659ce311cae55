"""Counts tokens for a model on a server: by its tokenizer's files, by the server, or estimated."""

import functools
import re
from typing import Any

from msgspec.structs import replace

from llmchat.engines.bounded_cache import SizedCache, remembered_count
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import Dialect
from llmchat.engines.openai_api.messages import defused, messages_of, text_of
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt

# The estimate: a token per five letters of a word; one for a digit, a punctuation mark, a line
# end, a character beyond ASCII and a run of spaces; two for an emoji. It errs on the high side.
_WORD = 5
# The most characters of remembered texts; the overhead of an entry counts as some of them.
_REMEMBERED, _ENTRY = 4_000_000, 200
_PIECE = re.compile(r"[A-Za-z]+|[^A-Za-z\s]|\n|[^\S\n]{2,}")


def _tokens_of(piece: str) -> int:
    if piece.isascii():
        return -(-len(piece) // _WORD) if piece.isalpha() else 1
    return 2 if piece > "\uffff" else 1


class Estimate:
    """Estimates, without a tokenizer. `encode` returns -1 for each estimated token."""

    exact = False

    def count(self, text: str) -> int:
        return sum(map(_tokens_of, _PIECE.findall(text)))

    def encode(self, prompt: Prompt) -> list[int]:
        return [-1] * (self.count(text_of(prompt)) + prompt.bos)


class Local:
    """Counts with the tokenizer's files on this machine."""

    exact = True

    def __init__(self, tokens: Tokenizer):
        self._tokens = tokens
        self.count = tokens.count

    def encode(self, prompt: Prompt) -> list[int]:
        return self._tokens.encode(replace(prompt, text=text_of(prompt), quoted=()))


class Remote:
    """Counts with requests to the server, and remembers the results."""

    exact = True

    def __init__(self, connection: Connection, dialect: Dialect, model: str, chat: bool):
        self._ask = functools.partial(connection.post, tries=1)
        self._root = connection.root
        self._model = model
        self._of_vllm = dialect.counts == "vllm"
        self._chat = chat
        self.count = remembered_count(self._count)
        self._ids = SizedCache(
            self._encode, lambda prompt, ids: len(prompt.text) + _ENTRY, _REMEMBERED
        )

    def encode(self, prompt: Prompt) -> list[int]:
        return list(self._ids(prompt))

    def _count(self, text: str) -> int:
        return len(self._tokens(defused(text), around=False))

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        if not self._chat:
            return tuple(self._tokens(text_of(prompt), around=prompt.bos))
        messages = messages_of(prompt)
        resumed = prompt.messages[-1].role == "assistant"
        if self._of_vllm:
            body: dict[str, Any] = {
                "messages": messages,
                "add_generation_prompt": not resumed,
                "continue_final_message": resumed,
            }
            return tuple(
                self._ask(f"{self._root}/tokenize", {"model": self._model, **body})["tokens"]
            )
        text = self._ask(f"{self._root}/apply-template", {"messages": messages})["prompt"]
        return tuple(self._tokens(text, around=True))

    def _tokens(self, text: str, *, around: bool) -> list[int]:
        body = (
            {"model": self._model, "prompt": text, "add_special_tokens": around}
            if self._of_vllm
            else {"content": text, "add_special": around, "parse_special": True}
        )
        ids: list[int] = self._ask(f"{self._root}/tokenize", body)["tokens"]
        return ids


def counter(
    connection: Connection, dialect: Dialect, model: str, chat: bool, tokens: Tokenizer | None
) -> "Local | Remote | Estimate":
    """The most exact counter available: files, else the server if it answers, else an estimate."""
    if tokens is not None:
        return Local(tokens)
    if dialect.counts:
        remote = Remote(connection, dialect, model, chat)
        try:
            remote.count("a")
        except (LlmchatError, KeyError, TypeError):
            return Estimate()
        return remote
    return Estimate()
