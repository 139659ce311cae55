"""The engine for `.gguf` files: llama.cpp, on the CPU or a GPU.

Prompts are tokenised with the file's own vocabulary under our rules, so that a special token in a
message stays text. llama.cpp reports no log-probability for a token that begins a character, only
for the one that completes it.
"""

import os
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling, Token, Unloaded
from llmchat.engines.checkpoint_files import context_of, read_json
from llmchat.engines.gguf import probe
from llmchat.engines.gguf.llama import Llama, Settings
from llmchat.engines.gguf.vocabulary import LlamaVocabulary
from llmchat.engines.parameter_names import LLAMA_CPP_SAMPLERS, PARAMETER_NAMES
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import ContextOverflow, OutOfResources
from llmchat.memory_estimate import available_ram, kv_bytes, longest_context
from llmchat.prompt import Prompt

# llama.cpp allocates the cache of the whole context window when it loads. Without --context the
# window is at most this large.
DEFAULT_CONTEXT = 8192
_PARAMETERS = PARAMETER_NAMES["llama.cpp"]
# llama.cpp's seeds have 32 bits, and this one stands for a random seed.
_ANY_SEED = 2**32 - 1


class GgufEngine:
    """A `.gguf` file with LoRA adapters in GGUF, each with its strength.

    facts: the folder that `hub.gguf_header` wrote for the file. context: tokens of the window; 0
    for that of the model, at most DEFAULT_CONTEXT.
    """

    resumes = True

    def __init__(
        self,
        model: Path,
        facts: Path,
        adapters: Sequence[tuple[Path, float]] = (),
        *,
        context: int = 0,
        device: str = "auto",
        name: str = "",
    ):
        started = time.perf_counter()
        trained = context_of(facts)
        self._settings = Settings(
            model, min(context or DEFAULT_CONTEXT, trained), tuple(adapters), device
        )
        self._name = name or model.stem
        _check_room(read_json(facts / "config.json"), self._settings)
        probe.check(model, facts, adapters)
        noisy = bool(os.environ.get("LLMCHAT_TRACEBACK"))
        self._running: Llama | None = Llama(self._settings, noisy=noisy)
        self._cleared = False
        self.context = self._running.context
        self.tokens = Tokenizer(facts, LlamaVocabulary(self._running, facts))
        self.load_s = time.perf_counter() - started

    def describe(self) -> str:
        return f"{self._name} gguf {self._settings.device}"

    def count(self, text: str) -> int:
        self._llama()
        return self.tokens.count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        self._llama()
        return self.tokens.encode(prompt)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        started = time.perf_counter()
        ids = self.encode(prompt)
        if len(ids) >= self.context:
            raise ContextOverflow(
                f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}"
            )
        seed = (secrets.randbits(32) if sampling.seed is None else sampling.seed) % _ANY_SEED
        limit = min(sampling.max_tokens or self.context, self.context - len(ids))
        stop_ids = frozenset[int]() if sampling.ignore_eos else self.tokens.stop_ids(prompt)
        answer = _Answer(prompt, sampling, stop_ids)
        request = _request(ids, sampling, seed, limit) | {
            "cache_prompt": not self._cleared,
            "preserved_tokens": list(prompt.shown_tokens),
        }
        with (
            self._llama().complete(request) as events,
            closing(answer.chunks(events)) as chunks,
        ):
            try:
                yield from chunks
            finally:
                # The first event comes when llama.cpp has replaced what it had read before.
                self._cleared = self._cleared and not answer.began
        ended = time.perf_counter()
        first = answer.first or ended
        yield Finish(
            "length" if answer.limited else "stop",
            len(ids),
            answer.cached,
            answer.produced,
            first - started,
            ended - first,
            seed,
        )

    def clear_cache(self) -> None:
        """The memory of the cache stays allocated: llama.cpp allocates it when it loads."""
        self._cleared = True

    def unload(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _llama(self) -> Llama:
        if self._running is None:
            raise Unloaded(self.describe())
        return self._running


def _check_room(config: dict[str, Any], settings: Settings) -> None:
    """Raise OutOfResources for a window whose KV cache does not fit. Weights are mapped, and the
    operating system can evict them.
    """
    needed, free = kv_bytes(config, settings.context), available_ram()
    if needed > free and settings.device in ("auto", "cpu"):
        smaller = longest_context(config, free)
        raise OutOfResources(
            f"a window of {settings.context:,} tokens takes {needed / 1e9:.1f} GB;"
            f" {free / 1e9:.1f} GB of memory are free",
            f"--context {smaller} fits" if smaller else "",
        )


class _Answer:
    """An answer in progress.

    began: an event has arrived. cached: prompt tokens that were in the cache. first: the time of
    the first token. limited: the answer ended at its limit.
    """

    def __init__(self, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int]):
        self._stop_ids = stop_ids
        self._stops = StopFilter((*prompt.stops, *sampling.stops))
        self._logprobs = sampling.logprobs
        self._tokens: list[Token] = []
        self.cached = self.produced = 0
        self.first = 0.0
        self.began = self.limited = False

    def chunks(self, events: Any) -> Generator[Chunk]:
        for event in events:
            self.began = True
            if progress := event.get("prompt_progress"):
                self.cached = progress["cache"]
                continue
            # Counts all tokens so far: llama.cpp holds back a character until it is complete.
            self.produced = event["tokens_predicted"]
            if event.get("stop"):
                self.limited = event.get("stop_type") == "limit"
                break
            self.first = self.first or time.perf_counter()
            if self._stop_ids.intersection(event["tokens"]):
                break
            self._tokens += [
                _token(entry, self._logprobs) for entry in event.get("completion_probabilities", ())
            ]
            if text := self._stops.feed(event["content"]):
                yield self._chunk(text)
            if self._stops.stopped:
                break
        if (text := self._stops.flush()) or self._tokens:
            yield self._chunk(text)

    def _chunk(self, text: str) -> Chunk:
        tokens, self._tokens = tuple(self._tokens), []
        return Chunk(text, tokens)


def _request(ids: list[int], sampling: Sampling, seed: int, limit: int) -> dict[str, Any]:
    """See llama.cpp, tools/server/README.md, POST /completion."""
    return {
        "prompt": ids,
        "n_predict": limit,
        **{theirs: getattr(sampling, ours) for ours, theirs in _PARAMETERS.items()},
        # Over the whole window like our other engines; the default of llama.cpp is 64 tokens.
        "repeat_last_n": len(ids) + limit,
        "dry_penalty_last_n": len(ids) + limit,
        "logit_bias": [*sampling.logit_bias.items()],
        "samplers": LLAMA_CPP_SAMPLERS,
        "seed": seed,
        "ignore_eos": sampling.ignore_eos,
        "return_tokens": True,
        "return_progress": True,
        **({"n_probs": max(1, sampling.logprobs - 1)} if sampling.logprobs else {}),
    }


def _token(entry: dict[str, Any], logprobs: int) -> Token:
    likeliest = entry["top_logprobs"][: logprobs - 1]
    rivals = tuple((bytes(one["bytes"]), float(one["logprob"])) for one in likeliest)
    return Token(entry["id"], bytes(entry["bytes"]), float(entry["logprob"]), rivals)
