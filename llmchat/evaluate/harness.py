"""Run tasks of lm-evaluation-harness on our engines, through its `LM` class.

For lm_eval.api.model 0.4. The harness writes its own prompts as plain text, so that scores compare
with published ones; with `chat` it uses the model's own format.
"""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Sampling
from llmchat.engines.capabilities import ScoringEngine
from llmchat.errors import NetworkError, UsageError, did_you_mean
from llmchat.evaluate.candidates import Candidate, with_model
from llmchat.evaluate.early_end import keep_results
from llmchat.evaluate.measure import Result, bare, score_text, scorer
from llmchat.evaluate.run import Outcome
from llmchat.models.open_model import OpenModel
from llmchat.output.progress import StepProgress
from llmchat.process import startup
from llmchat.prompt import Prompt, PromptFormat
from llmchat.settings import World

ANSWER_TOKENS = 256
_FEWSHOT_SEED = 1234


class HarnessModel:
    """An engine with the methods of the harness's `LM`; answers keep the order of requests."""

    def __init__(
        self,
        engine: Engine,
        form: PromptFormat,
        opening: Sequence[str],
        progress: StepProgress,
        *,
        label: str,
        chat: bool,
    ):
        self._engine, self._form, self._opening, self._chat = engine, form, opening, chat
        self._label, self._progress = label, progress

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For each (context, continuation): its log-probability, and whether it is greedy."""
        return [self._likelihood(*request.args) for request in self._told(requests)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """The log-probability of each whole text."""
        engine = scorer(self._engine)
        texts = (request.args[0] for request in self._told(requests))
        return [
            math.fsum(score_text(engine, bare(self._engine, text, self._opening), engine.context))
            for text in texts
        ]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """For each (context, settings): the answer up to one of the strings in `until`."""
        return [self._generate(*request.args) for request in self._told(requests)]

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation in the model's own format.

        Without `add_generation_prompt` its last answer stays open.
        """
        messages = [Message(one["role"], one["content"]) for one in chat_history]  # type: ignore[arg-type]
        open_answer = not add_generation_prompt and messages[-1].role == "assistant"
        return (self._form.extend(messages) if open_answer else self._form.render(messages)).text

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._form.name if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        return f"{self._form.name}@{self._form.fingerprint()}"

    def _told(self, requests: Sequence[Any]) -> Any:
        self._progress.begin(self._label, len(requests))
        self._progress.expect(len(requests))
        for request in requests:
            self._progress.started(str(getattr(request, "task_name", "") or "harness"))
            yield request
            self._progress.done()

    def _likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        engine = scorer(self._engine)
        if context:
            # As the harness does: blanks at the border belong to the continuation.
            kept = context.rstrip()
            whole, border = self._encode(context + continuation), len(self._encode(kept))
        else:
            whole, border = bare(self._engine, continuation, self._opening), 1
        cut = max(0, len(whole) - engine.context - 1)
        ids, border = whole[cut:], max(border - cut, 1)
        scores = engine.score(ids)[border - 1 :].tolist()
        return math.fsum(scores), _is_greedy(engine, ids, border, scores)

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else [stop for stop in until if stop]
        longest = int(
            settings.get("max_gen_toks") or settings.get("max_new_tokens") or ANSWER_TOKENS
        )
        drawn = bool(settings.get("do_sample")) and float(settings.get("temperature") or 0) > 0
        sampling = Sampling(
            temperature=float(settings["temperature"]) if drawn else 0.0,
            max_tokens=longest,
            stops=tuple(until),
        )
        prompt = self._prompt(context)
        room = max(self._engine.context - longest, self._engine.context // 2)
        while (tokens := len(self._engine.encode(prompt))) > room:
            # The harness drops the start of a text that is too long.
            context = context[max(1, len(context) * (tokens - room) // tokens) :]
            prompt = self._prompt(context)
        return "".join(
            event.text
            for event in self._engine.stream(prompt, sampling)
            if isinstance(event, Chunk)
        )

    def _encode(self, text: str) -> list[int]:
        return self._engine.encode(self._prompt(text))

    def _prompt(self, text: str) -> Prompt:
        form = self._form
        if self._chat:
            return Prompt(text, (), form.stops, form.stop_ids, bos=form.parts is not None)
        return Prompt(text, ())


def _is_greedy(engine: ScoringEngine, ids: list[int], border: int, scores: list[float]) -> bool:
    """Whether each token from `border` on is the most probable one.

    A token above one half is. The others are checked, the least probable first.
    """
    doubtful = sorted(
        (score, border + index) for index, score in enumerate(scores) if score <= math.log(0.5)
    )
    return all(
        int(engine.logits(ids[:position]).argmax()) == ids[position] for _, position in doubtful
    )


def run_harness(
    candidates: Sequence[Candidate],
    names: Sequence[str],
    world: World,
    *,
    limit: int = 0,
    include: str | None = None,
    chat: bool = False,
    offline: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Run harness tasks on every model; returns its metrics, document by document.

    include: a folder with task files. A model that was interrupted has no results, because the
    harness computes them at the end.
    """
    tasks = _tasks(names, include, offline)
    outcome = Outcome([])
    progress = StepProgress(world, 0, quiet=quiet)
    with keep_results(outcome, progress):
        for candidate in candidates:

            def work(opened: OpenModel, candidate: Candidate = candidate) -> list[Result]:
                started = time.perf_counter()
                found = _evaluate(opened, candidate, tasks, progress, limit, chat)
                return results_of(found, candidate.label, time.perf_counter() - started)

            outcome.results += with_model(candidate, world, work, quiet=quiet)
    return outcome


def _tasks(names: Sequence[str], include: str | None, offline: bool) -> Any:
    """Load the harness's tasks with their data, before any model."""
    startup.configure_datasets(offline=offline)
    try:
        from lm_eval.tasks import TaskManager  # type: ignore
    except ImportError as error:
        raise UsageError(
            "lm-evaluation-harness is not installed", "pip install 'lm-eval>=0.4.13,<0.5'"
        ) from error
    for noisy in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    manager = TaskManager(include_path=include)
    for name in names:
        if not manager.match_tasks([name]):
            raise UsageError(
                f"the harness has no task `{name}`", did_you_mean(name, list(manager.all_tasks))
            )
    try:
        loaded = manager.load(list(names))
    except (OSError, ValueError, ImportError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NetworkError(
            f"the data of {', '.join(names)} cannot be loaded: {line}",
            "they come from the Hugging Face Hub the first time",
        ) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise UsageError(
                f"the task `{name}` runs code that models write, or needs images;"
                " llmchat supports neither"
            )
        # As the harness's own command sets them.
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return loaded


def _evaluate(
    opened: OpenModel,
    candidate: Candidate,
    tasks: Any,
    progress: StepProgress,
    limit: int,
    chat: bool,
) -> dict[str, Any]:
    # Not `simple_evaluate`: it seeds every random generator of the process and calls git.
    from lm_eval import evaluator  # type: ignore
    from lm_eval.api.model import LM  # type: ignore

    class Adapter(HarnessModel, LM):
        def __init__(self) -> None:
            LM.__init__(self)
            HarnessModel.__init__(
                self,
                opened.engine,
                opened.preset.format,
                candidate.opening,
                progress,
                label=candidate.label,
                chat=chat,
            )

    found: dict[str, Any] = evaluator.evaluate(
        lm=Adapter(),
        task_dict=tasks,
        limit=limit or None,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        bootstrap_iters=0,
    )
    return found


def results_of(found: dict[str, Any], model: str, seconds: float) -> list[Result]:
    """Convert the harness's samples to results; the time is distributed evenly.

    The three perplexities of a text become one result, over its words and bytes.
    """
    samples = [
        (task, sample) for task, found_here in found["samples"].items() for sample in found_here
    ]
    each = seconds / max(len(samples), 1)
    results = []
    for task, sample in samples:
        filtered = "" if sample["filter"] == "none" else f" ({sample['filter']})"
        answered = sample["filtered_resps"][0] if sample["filtered_resps"] else ""
        blank = Result(
            "",
            model,
            task,
            "",
            sample["doc_id"] + 1,
            0.0,
            each,
            answered if isinstance(answered, str) else "",
            (str(sample["target"]),),
        )
        measured = {metric: sample.get(metric) for metric in sample["metrics"]}
        of_text = {
            metric: measured.pop(metric)
            for metric in ("bits_per_byte", "byte_perplexity", "word_perplexity")
            if metric in measured
        }
        if of_text:
            # Each is (log-likelihood, how many words or bytes).
            sizes = {metric.partition("_")[0]: int(value[1]) for metric, value in of_text.items()}
            size = sizes.get("byte", sizes.get("bits", 0))
            likelihood = next(iter(of_text.values()))[0]
            results.append(
                replace(
                    blank,
                    kind="perplexity",
                    score=-likelihood,
                    tokens=sizes.get("word", size),
                    bytes=size,
                )
            )
        for metric, value in measured.items():
            if isinstance(value, int | float):
                results.append(replace(blank, kind=metric + filtered, score=float(value)))
    return results
