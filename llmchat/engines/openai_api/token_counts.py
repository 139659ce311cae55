"""How many tokens a text is to a model that runs elsewhere: the server's own count where it gives one, else an estimate."""

import functools
import re
from typing import Any

from msgspec.structs import replace

from llmchat.engines.bounded_cache import SizedCache, remembered_count
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import Dialect
from llmchat.engines.openai_api.messages import disarmed, messages_of, text_of
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt

# A word takes a token for every five letters begun; a digit, a sign, a line end, a character beyond ASCII and a run of spaces one each, an
# emoji two. That is meant to be a little too much rather than too little.
_WORD = 5
# Characters of the texts whose ids are remembered; each entry takes some beside its text.
_REMEMBERED, _ENTRY = 4_000_000, 200
_PIECE = re.compile(r"[A-Za-z]+|[^A-Za-z\s]|\n|[^\S\n]{2,}")


def _tokens_of(piece: str) -> int:
    if piece.isascii():
        return -(-len(piece) // _WORD) if piece.isalpha() else 1
    return 2 if piece > "\uffff" else 1


class Estimate:
    """Without a tokenizer. Where ids are asked for, it gives as many times -1 as there may be tokens."""

    exact = False

    def count(self, text: str) -> int:
        return sum(map(_tokens_of, _PIECE.findall(text)))

    def encode(self, prompt: Prompt) -> list[int]:
        return [-1] * (self.count(text_of(prompt)) + prompt.bos)


class Local:
    """With the tokenizer's files on this machine."""

    exact = True

    def __init__(self, tokens: Tokenizer):
        self._tokens = tokens
        self.count = tokens.count

    def encode(self, prompt: Prompt) -> list[int]:
        return self._tokens.encode(replace(prompt, text=text_of(prompt), quoted=()))


class Remote:
    """With the server's help. What was counted is remembered; where the server fails in the middle, it is estimated."""

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
        return len(self._tokens(disarmed(text), around=False))

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
    """The best counter there is."""
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
