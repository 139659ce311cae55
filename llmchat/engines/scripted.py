"""An engine without a model, for tests and demos.

It keeps the whole contract of `Engine` and answers with texts that it was given.
"""

import re
import time
import zlib
from collections.abc import Generator, Sequence

from llmchat.engines import Adapters, Chunk, Finish, Sampling, Unloaded
from llmchat.engines.stream_filters import StopFilter
from llmchat.errors import ContextOverflow
from llmchat.prompt import Prompt, plain_text

_PIECE = re.compile(r"\w+|\s|[^\w\s]")
_BOS = 1


class ScriptedEngine:
    """Answers with `replies` in turn, then from the first again; without any it quotes the
    question.

    `prompts` collects the prompts it was asked. A token is a word, a space or a punctuation mark.
    delay_s: seconds before each token. slots: the most answers in progress at once.
    """

    slots = 8
    resumes = True

    def __init__(self, replies: Sequence[str] = (), *, context: int = 2048, delay_s: float = 0.0):
        self.context = context
        self.load_s = 0.0
        self.prompts: list[Prompt] = []
        self._replies = tuple(replies)
        self._delay_s = delay_s
        self._cached_ids: list[int] = []
        self._unloaded = False

    def describe(self) -> str:
        return "scripted"

    def count(self, text: str) -> int:
        self._check_loaded()
        return len(_PIECE.findall(text))

    def encode(self, prompt: Prompt) -> list[int]:
        self._check_loaded()
        ids = [zlib.crc32(piece.encode()) for piece in _PIECE.findall(prompt.text)]
        return [_BOS, *ids] if prompt.bos else ids

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        started = time.perf_counter()
        ids = self._encode_fitting(prompt)
        reply = self._reply(prompt)
        self.prompts.append(prompt)
        cached = min(_common_prefix(self._cached_ids, ids), len(ids) - 1)
        self._cached_ids = ids
        pieces = _PIECE.findall(reply)
        limit = min(sampling.max_tokens or self.context, self.context - len(ids))
        filtered = StopFilter((*prompt.stops, *sampling.stops))
        produced, first = 0, 0.0
        for piece in pieces[:limit]:
            time.sleep(self._delay_s)
            first = first or time.perf_counter()
            produced += 1
            if text := filtered.feed(piece):
                yield Chunk(text)
            if filtered.stopped:
                break
        if text := filtered.flush():
            yield Chunk(text)
        ended = time.perf_counter()
        first = first or ended
        done = filtered.stopped or produced == len(pieces)
        yield Finish(
            "stop" if done else "length",
            prompt_tokens=len(ids),
            cached_tokens=cached,
            reply_tokens=produced,
            prefill_s=first - started,
            decode_s=ended - first,
            seed=sampling.seed or 0,
            stop=filtered.stop,
        )

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> "ScriptedAnswer":
        tokens = len(self._encode_fitting(prompt))
        return ScriptedAnswer(self.stream(prompt, sampling), tokens)

    def step(self, answers: Sequence["ScriptedAnswer"]) -> list[list[Chunk | Finish]]:
        return [[answer.next_event()] for answer in answers]

    def clear_cache(self) -> None:
        self._cached_ids = []

    def unload(self) -> None:
        self._cached_ids, self._unloaded = [], True

    def _check_loaded(self) -> None:
        if self._unloaded:
            raise Unloaded(self.describe())

    def _encode_fitting(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt. Raises ContextOverflow if it leaves no room for an answer."""
        ids = self.encode(prompt)
        if len(ids) >= self.context:
            raise ContextOverflow(
                f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}"
            )
        return ids

    def _reply(self, prompt: Prompt) -> str:
        if self._replies:
            return self._replies[len(self.prompts) % len(self._replies)]
        questions = [plain_text(one) for one in prompt.messages if one.role == "user"]
        question = questions[-1] if questions else ""
        quoted = "\n".join(f"> {line}" for line in question.splitlines())
        demo = "I am a **demo** without a model; `--model` chooses a real one."
        return f"You wrote:\n\n{quoted}\n\n{demo}"


class ScriptedAnswer:
    """One answer among several; each step returns one event of it."""

    def __init__(self, events: Generator[Chunk | Finish], prompt_tokens: int):
        self.done = False
        self.prompt_tokens = prompt_tokens
        self.cached_tokens: int | None = None
        self._events = events

    def next_event(self) -> Chunk | Finish:
        event = next(self._events)
        self.done = isinstance(event, Finish)
        return event

    def close(self) -> None:
        self.done = True
        self._events.close()


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of ids that both begin with."""
    pairs = zip(one, other, strict=False)
    different = (index for index, (left, right) in enumerate(pairs) if left != right)
    return next(different, min(len(one), len(other)))
