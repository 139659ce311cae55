"""The engine for a model on a server with OpenAI's API: vLLM, llama-server, SGLang, Ollama,
`llmchat serve`, OpenAI. It imports no torch.

Chat sends the messages to /v1/chat/completions, and the server renders them with its own template.
Text sends our rendering to /v1/completions unchanged, with our stop strings.
"""

import secrets
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling, Unloaded
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import (
    Dialect,
    dropped,
    sampling_fields,
    thinking_fields,
)
from llmchat.engines.openai_api.messages import messages_of, text_of
from llmchat.engines.openai_api.server_models import Served
from llmchat.engines.openai_api.stream_parser import StreamParser
from llmchat.engines.openai_api.structures import structure_fields
from llmchat.engines.openai_api.token_counts import counter
from llmchat.engines.openai_api.tools import tool_fields
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import ContextOverflow, UsageError
from llmchat.prompt import Prompt
from llmchat.structure import Structure


class OpenAIEngine:
    """A model of a server.

    chat: send messages instead of text. tokens: its tokenizer, if its files are on this machine.
    context: the window that the user names; one that the server reports takes precedence.
    """

    def __init__(
        self,
        connection: Connection,
        served: Served,
        *,
        chat: bool,
        name: str = "",
        tokens: Tokenizer | None = None,
        context: int = 0,
    ):
        started = time.perf_counter()
        self._connection = connection
        self._served = served
        self._dialect: Dialect = served.dialect
        self._chat = chat
        self._name = name or served.name
        self.context = served.context or context or served.assumed_context
        self._counter = counter(connection, served.dialect, served.name, chat, tokens)
        self._unloaded = False
        self._dropped: tuple[str, ...] = ()
        self.load_s = time.perf_counter() - started

    @property
    def resumes(self) -> bool:
        """Whether the server continues an answer that a prompt ends with."""
        return not self._chat or self._dialect.resumes

    @property
    def sends_messages(self) -> bool:
        """See capabilities.SendsMessages."""
        return self._chat

    @property
    def sends_tools(self) -> bool:
        """See capabilities.SendsTools."""
        return self._chat

    def describe(self) -> str:
        title, host = self._dialect.title, self._connection.host
        parts = [f"{self._name} on {f'{title} at {host}' if title else host}"]
        if self._served.name != self._name:
            parts.append(f" as {self._served.name}")
        if not self._counter.exact:
            parts.append(", tokens estimated")
        if self._dropped:
            parts.append(f", without {', '.join(self._dropped)}")
        return "".join(parts)

    def count(self, text: str) -> int:
        self._check_connected()
        return self._counter.count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        self._check_connected()
        return self._counter.encode(prompt)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        started = time.perf_counter()
        size = len(self.encode(prompt))
        if self._counter.exact and size >= self.context:
            raise ContextOverflow(
                f"the prompt is {size:,} tokens; the model holds {self.context:,}"
            )
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        stops = StopFilter((*prompt.stops, *sampling.stops))
        path, body = self.request(prompt, sampling, seed)
        parser, pieces, first = StreamParser(self._connection), 0, 0.0
        with (
            self._connection.stream(path, body) as (kind, data),
            closing(parser.text(kind, data)) as texts,
        ):
            for text in texts:
                first = first or time.perf_counter()
                pieces += 1
                if shown := stops.feed(text):
                    yield Chunk(shown)
                if stops.stopped:
                    break
        calls, broken = parser.calls.calls()
        if (rest := stops.flush() + broken) or calls:
            yield Chunk(rest, calls=calls)
        ended = time.perf_counter()
        first = first or ended
        yield Finish(
            "stop" if stops.stopped or parser.reason != "length" else "length",
            parser.prompt_tokens if parser.prompt_tokens is not None else size,
            parser.cached_tokens,
            parser.reply_tokens if parser.reply_tokens is not None else pieces,
            first - started,
            ended - first,
            seed,
            stops.stop,
        )

    def request(self, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[str, dict[str, Any]]:
        """Path and body of a request: exactly what is sent."""
        if sampling.logprobs:
            raise UsageError("the engine `openai` does not support log-probabilities")
        dialect = self._dialect
        self._dropped = dropped(sampling, dialect, chat=self._chat)
        stops = [*dict.fromkeys((*prompt.stops, *sampling.stops))][: dialect.stops]
        body: dict[str, Any] = {
            "model": self._served.name,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": seed,
        }
        body |= sampling_fields(sampling, dialect) | ({"stop": stops} if stops else {})
        if sampling.structure:
            body |= structure_fields(sampling.structure, dialect, self._chat)
        if prompt.stop_ids and dialect.stop_ids and not self._chat:
            body[dialect.stop_ids] = list(prompt.stop_ids)
        if not self._chat:
            # The format leaves BOS to the tokenizer; vLLM and llama.cpp both add it.
            return "completions", {**body, "prompt": text_of(prompt)}
        if prompt.messages and prompt.messages[-1].role == "assistant":
            if not self.resumes:
                raise UsageError(
                    f"{self._connection.host} cannot continue an answer",
                    "`/regen` asks for another one",
                )
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        body |= thinking_fields(sampling, dialect) | tool_fields(prompt.tools, dialect)
        return "chat/completions", {**body, "messages": messages_of(prompt)}

    def check_structure(self, structure: Structure) -> None:
        """See capabilities.ChecksStructure."""
        structure_fields(structure, self._dialect, self._chat)

    def clear_cache(self) -> None:
        """Does nothing: the cache belongs to the server."""

    def unload(self) -> None:
        """Close the connection; the server keeps its model."""
        self._unloaded = True
        self._connection.close()

    def _check_connected(self) -> None:
        if self._unloaded:
            raise Unloaded(self.describe())
