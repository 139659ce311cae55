"""An engine without a model, for tests and demos: it says what it was told to, word by word, and obeys every rule of the seam."""

import re
import time
import zlib
from collections.abc import Generator, Sequence

from llmchat.engines import Adapters, Chunk, Finish, Sampling
from llmchat.engines.stream_filters import StopFilter
from llmchat.errors import ContextOverflow
from llmchat.prompt import Prompt, plain_text

_PIECE = re.compile(r"\w+|\s|[^\w\s]")
_BOS = 1


class ScriptedEngine:
    """Gives `replies` in turn and then begins again; without any it quotes the question. `prompts` are those it was given.

    A token is a word, a space or a sign. delay_s: seconds before each. slots: answers that may be under way at once.
    """

    slots = 8

    def __init__(self, replies: Sequence[str] = (), *, context: int = 2048, delay_s: float = 0.0):
        self.context = context
        self.load_s = 0.0
        self.prompts: list[Prompt] = []
        self._replies = tuple(replies)
        self._delay_s = delay_s
        self._seen: list[int] = []

    def describe(self) -> str:
        return "scripted"

    def count(self, text: str) -> int:
        return len(_PIECE.findall(text))

    def encode(self, prompt: Prompt) -> list[int]:
        ids = [zlib.crc32(piece.encode()) for piece in _PIECE.findall(prompt.text)]
        return [_BOS, *ids] if prompt.bos else ids

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        started = time.perf_counter()
        ids = self.encode(prompt)
        if len(ids) >= self.context:
            raise ContextOverflow(
                f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}"
            )
        reply = self._reply(prompt)
        self.prompts.append(prompt)
        cached = min(_common(self._seen, ids), len(ids) - 1)
        self._seen = ids
        pieces = _PIECE.findall(reply)
        limit = min(sampling.max_tokens or self.context, self.context - len(ids))
        filtered = StopFilter((*prompt.stops, *sampling.stops))
        produced, first = 0, time.perf_counter()
        for piece in pieces[:limit]:
            time.sleep(self._delay_s)
            produced += 1
            if text := filtered.feed(piece):
                yield Chunk(text)
            if filtered.stopped:
                break
        if text := filtered.flush():
            yield Chunk(text)
        done = filtered.stopped or produced == len(pieces)
        yield Finish(
            "stop" if done else "length",
            len(ids),
            cached,
            produced,
            first - started,
            time.perf_counter() - first,
            sampling.seed or 0,
        )

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> "ScriptedAnswer":
        tokens = len(self.encode(prompt))
        if tokens >= self.context:
            raise ContextOverflow(
                f"the prompt is {tokens:,} tokens; the model holds {self.context:,}"
            )
        return ScriptedAnswer(self.stream(prompt, sampling), tokens)

    def step(self, answers: Sequence["ScriptedAnswer"]) -> list[list[Chunk | Finish]]:
        return [[answer.say()] for answer in answers]

    def close(self) -> None:
        self._seen = []

    def _reply(self, prompt: Prompt) -> str:
        if self._replies:
            return self._replies[len(self.prompts) % len(self._replies)]
        question = next(
            (
                plain_text(message)
                for message in reversed(prompt.messages)
                if message.role == "user"
            ),
            "",
        )
        quoted = "\n".join(f"> {line}" for line in question.splitlines())
        return f"You wrote:\n\n{quoted}\n\nI am a **demo** without a model; `--model` chooses a real one."


class ScriptedAnswer:
    """One answer among several: a piece of it a step."""

    def __init__(self, events: Generator[Chunk | Finish], prompt_tokens: int):
        self.done = False
        self.prompt_tokens = prompt_tokens
        self._events = events

    def say(self) -> Chunk | Finish:
        event = next(self._events)
        self.done = isinstance(event, Finish)
        return event

    def close(self) -> None:
        self.done = True
        self._events.close()


def _common(one: list[int], other: list[int]) -> int:
    return next(
        (
            index
            for index, (left, right) in enumerate(zip(one, other, strict=False))
            if left != right
        ),
        min(len(one), len(other)),
    )
