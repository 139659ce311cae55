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
from llmchat.engines.gguf.structures import either_fields, has_llguidance, structure_fields
from llmchat.engines.gguf.vocabulary import LlamaVocabulary
from llmchat.engines.guide.conformance import begins, conforms
from llmchat.engines.parameter_names import LLAMA_CPP_SAMPLERS, PARAMETER_NAMES
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import ContextOverflow, LlmchatError, OutOfResources
from llmchat.memory_estimate import available_ram, kv_bytes, longest_context
from llmchat.prompt import Prompt, ThinkingMarks
from llmchat.settings.types import KvKind
from llmchat.structure import Structure

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
        kv: KvKind = "full",
        name: str = "",
    ):
        started = time.perf_counter()
        trained = context_of(facts)
        self._settings = Settings(
            model, min(context or DEFAULT_CONTEXT, trained), tuple(adapters), device, kv
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

    @property
    def follows_grammars(self) -> bool:
        """See capabilities.FollowsGrammars: builds of llama.cpp with llguidance do."""
        return has_llguidance()

    def describe(self) -> str:
        cached = "" if self._settings.kv == "full" else f" kv {self._settings.kv}"
        return f"{self._name} gguf{cached} {self._settings.device}"

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
            "preserved_tokens": list(prompt.shown_tokens),
        }
        if sampling.structure is None:
            yield from self._free(request, answer, prompt, sampling.think_budget)
        else:
            yield from self._structured(request, answer, prompt, sampling)
        yield from answer.rest()
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
            answer.stop,
        )

    def _run(self, request: dict[str, Any], answer: "_Answer") -> Generator[Chunk]:
        """Add the tokens of a request to an answer, which continues what it has."""
        body = {
            **request,
            "prompt": request["prompt"] + self._ids_of(answer),
            "n_predict": max(1, request["n_predict"] - answer.produced),
            "cache_prompt": not self._cleared,
        }
        with (
            self._llama().complete(body) as events,
            closing(answer.chunks(events)) as chunks,
        ):
            try:
                yield from chunks
            finally:
                # The first event comes when llama.cpp has replaced what it had read before.
                self._cleared = self._cleared and not answer.began

    def _ids_of(self, answer: "_Answer") -> list[int]:
        """The tokens of an answer so far.

        llama.cpp does not tell those that only begin a character; then the text is tokenised.
        """
        if len(answer.ids) >= answer.produced:
            return answer.ids
        return [token for token, _ in self._llama().tokenize(answer.written, special=True)]

    def _free(
        self, request: dict[str, Any], answer: "_Answer", prompt: Prompt, budget: int | None
    ) -> Generator[Chunk]:
        """Generate an answer without a structure."""
        marks = prompt.thinking
        if marks and marks.inside and budget is not None:
            yield from self._think(request, answer, marks, budget)
            if answer.until:
                return
        yield from self._run(request | _budget_fields(marks, budget), answer)

    def _think(
        self,
        request: dict[str, Any],
        answer: "_Answer",
        marks: ThinkingMarks,
        budget: int | None,
        *,
        closes: bool = False,
    ) -> Generator[Chunk]:
        """Generate the rest of a thought, at most `budget` tokens, and close it where that is up.

        Afterwards `answer.until` is empty, unless the answer is at its end. closes: also where the
        model ends within the thought.
        """
        answer.until, most = marks.closing, request["n_predict"]
        spent = budget == 0
        if not spent:
            limit = most if budget is None else min(most, answer.produced + budget)
            yield from self._run(request | {"n_predict": limit}, answer)
            spent = answer.limited and answer.produced < most
        if answer.until and (spent or (closes and not answer.limited)):
            mark = self._llama().tokenize(marks.closing, special=True)
            yield from answer.force(marks.closing, [token for token, _ in mark])

    def _structured(
        self, request: dict[str, Any], answer: "_Answer", prompt: Prompt, sampling: Sampling
    ) -> Generator[Chunk]:
        """Generate a thought freely, where the model has one, and then the structure.

        A grammar of llama.cpp binds an answer from its first token, so each part is a request.
        """
        special, marks, structure = self._special_tokens(), prompt.thinking, sampling.structure
        assert structure is not None
        if marks:
            request["preserved_tokens"] += [marks.opening, marks.closing]
        if marks and not marks.inside:
            yield from self._run(request | either_fields(structure, marks.opening, special), answer)
            if not answer.written.startswith(marks.opening):
                return _check_form(structure, answer, 0)
        if marks:
            yield from self._think(request, answer, marks, sampling.think_budget, closes=True)
            if answer.until:
                return
        start = len(answer.written)
        yield from self._run(request | structure_fields(structure, special), answer)
        _check_form(structure, answer, start)

    def _special_tokens(self) -> dict[str, int]:
        """The ids of special tokens by name."""
        numbers = {name: self.tokens.id_of(name) for name in self.tokens.special}
        return {name: number for name, number in numbers.items() if number is not None}

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
    needed, free = kv_bytes(config, settings.context, settings.kv), available_ram()
    if needed > free and settings.device in ("auto", "cpu"):
        smaller = longest_context(config, free, settings.kv)
        raise OutOfResources(
            f"a window of {settings.context:,} tokens takes {needed / 1e9:.1f} GB;"
            f" {free / 1e9:.1f} GB of memory are free",
            f"--context {smaller} fits" if smaller else "",
        )


class _Answer:
    """An answer in progress.

    began: an event has arrived. cached: prompt tokens that were in the cache. first: the time of
    the first token. limited: the last request ended at its limit. written and ids: all of it, with
    stop strings. until: a text that ends the request, "" where it has come.
    """

    def __init__(self, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int]):
        self._stop_ids = stop_ids
        self._stops = StopFilter((*prompt.stops, *sampling.stops))
        self._logprobs = sampling.logprobs
        self._tokens: list[Token] = []
        self.cached = self.produced = 0
        self.first = 0.0
        self.began = self.limited = False
        self.written, self.ids, self.until = "", list[int](), ""

    def chunks(self, events: Any) -> Generator[Chunk]:
        before, self.limited = self.produced, False
        for event in events:
            if progress := event.get("prompt_progress"):
                self.cached = self.cached if before else progress["cache"]
                self.began = True
                continue
            self.began = True
            # Counts all tokens so far: llama.cpp holds back a character until it is complete.
            self.produced = before + event["tokens_predicted"]
            if event.get("stop"):
                self.limited = event.get("stop_type") == "limit"
                self.ended = not self.limited
                break
            self.first = self.first or time.perf_counter()
            if self._stop_ids.intersection(event["tokens"]):
                break
            self._tokens += [
                _token(entry, self._logprobs) for entry in event.get("completion_probabilities", ())
            ]
            self.ids += event["tokens"]
            self.written += event["content"]
            if text := self._stops.feed(event["content"]):
                yield self._chunk(text)
            if self.stopped or self._complete():
                break

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer."""
        return self._stops.stopped

    @property
    def stop(self) -> str:
        """The stop string that ended the answer."""
        return self._stops.stop

    def _complete(self) -> bool:
        """Whether the text has come that ends the request."""
        if not self.until or self.until not in self.written:
            return False
        self.until = ""
        return True

    def force(self, text: str, ids: list[int]) -> Generator[Chunk]:
        """Add the text that ends the request, which the model did not choose."""
        self.until = ""
        self.produced += len(ids)
        self.written, self.ids = self.written + text, self.ids + ids
        if shown := self._stops.feed(text):
            yield self._chunk(shown)

    def rest(self) -> Generator[Chunk]:
        """What was held back."""
        if (text := self._stops.flush()) or self._tokens:
            yield self._chunk(text)

    def _chunk(self, text: str) -> Chunk:
        tokens, self._tokens = tuple(self._tokens), []
        return Chunk(text, tokens)


def _check_form(structure: Structure, answer: _Answer, start: int) -> None:
    """Raise LlmchatError for an answer that the structure did not bind.

    llama.cpp generates free text without a word where it cannot compile a grammar. start: where the
    answer begins, behind its thought.
    """
    text, cut = answer.written[start:], answer.limited or answer.stopped
    if (begins if cut else conforms)(structure, text) is False:
        raise LlmchatError(
            f"llama.cpp did not follow the {structure.kind}",
            "its version of llguidance cannot enforce it; --engine transformers can",
        )


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
        # It takes no empty list.
        "dry_sequence_breakers": sampling.dry_sequence_breakers or ("\0",),
        "samplers": LLAMA_CPP_SAMPLERS,
        "seed": seed,
        "ignore_eos": sampling.ignore_eos,
        "return_tokens": True,
        "return_progress": True,
        **({"n_probs": max(1, sampling.logprobs - 1)} if sampling.logprobs else {}),
    }


def _budget_fields(marks: ThinkingMarks | None, budget: int | None) -> dict[str, Any]:
    """The budget of a thought that the answer begins: llama.cpp forces the closing mark."""
    if marks is None or marks.inside or budget is None:
        return {}
    return {
        "reasoning_budget_tokens": budget,
        "reasoning_budget_start_tag": marks.opening,
        "reasoning_budget_end_tags": [marks.closing],
        # Without it no mark is forced.
        "reasoning_budget_message": "",
    }


def _token(entry: dict[str, Any], logprobs: int) -> Token:
    likeliest = entry["top_logprobs"][: logprobs - 1]
    rivals = tuple((bytes(one["bytes"]), float(one["logprob"])) for one in likeliest)
    return Token(entry["id"], bytes(entry["bytes"]), float(entry["logprob"]), rivals)
