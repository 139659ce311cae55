"""lm-evaluation-harness on llmchat's engine.

Its three request types are compared with transformers, and its tasks become results. Where the
harness is installed, it runs too.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.checkpoints import save_tiny, tiny_tokenizer
from transformers import AutoModelForCausalLM

from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.evaluate import harness, report, run_harness
from llmchat.evaluate.candidates import find_candidates
from llmchat.evaluate.harness import HarnessModel, results_of
from llmchat.models.opener import ModelOpener
from llmchat.output.progress import StepProgress
from llmchat.presets import get_format
from llmchat.settings import World

FLAGS = {"weights": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


def adapter(tiny: Path, world: World, *, chat: bool = False) -> HarnessModel:
    opened = ModelOpener(world, {**FLAGS, "model": str(tiny)}).open()
    return HarnessModel(
        opened.engine,
        opened.preset.format,
        ("<s>", "</s>"),
        StepProgress(world, 0, quiet=True),
        label="tiny",
        chat=chat,
    )


def asked(*args: Any) -> list[Any]:
    return [SimpleNamespace(args=args, task_name="t")]


def by_transformers(folder: Path, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token but the first, and whether it is the likeliest."""
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(
            torch.tensor([ids])
        ).logits[0, :-1]
    following = torch.tensor(ids[1:])
    return logits.log_softmax(-1).gather(1, following[:, None])[:, 0], logits.argmax(
        -1
    ) == following


def test_likelihoods_are_those_of_transformers(tiny: Path, world: World) -> None:
    model, encode = (
        adapter(tiny, world),
        lambda text: tiny_tokenizer()(text, add_special_tokens=False).input_ids,
    )
    context, continuation = "the quick brown", " fox jumps over"
    scores, _ = by_transformers(tiny, encode(context + continuation))
    ((likelihood, greedy),) = model.loglikelihood(asked(context, continuation))
    assert (
        likelihood == pytest.approx(scores[len(encode(context)) - 1 :].sum().item(), abs=2e-3)
        and not greedy
    )
    ((moved, _),) = model.loglikelihood(asked(context + " ", "fox jumps over"))
    assert moved == pytest.approx(likelihood, abs=1e-4), (
        "white space at the border belongs to the continuation"
    )
    alone, _ = by_transformers(tiny, [1, *encode("fox")])
    assert model.loglikelihood(asked("", "fox"))[0][0] == pytest.approx(
        alone.sum().item(), abs=2e-3
    )
    assert model.loglikelihood_rolling(asked("fox")) == [
        pytest.approx(alone.sum().item(), abs=2e-3)
    ]


def test_what_greedy_decoding_would_write_is_known(tiny: Path, world: World) -> None:
    model, tokenizer = adapter(tiny, world), tiny_tokenizer()
    theirs = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    seen = set()
    for context in (
        f"{word} {letter}" for word in ("the fox", "question", "a", "lazy") for letter in "abcdefg"
    ):
        said = ""
        for _ in range(2):
            with torch.no_grad():
                said += tokenizer.decode(
                    theirs(torch.tensor([ids_of(context + said)])).logits[0, -1].argmax()
                )
        written = ids_of(context + said)
        if written[: len(ids_of(context))] != ids_of(context) or len(written) == len(
            ids_of(context)
        ):
            continue
        expected = bool(by_transformers(tiny, written)[1][len(ids_of(context)) - 1 :].all())
        assert model.loglikelihood(asked(context, said))[0][1] is expected, (context, said)
        assert model.loglikelihood(asked(context, said + "q"))[0][1] is bool(
            by_transformers(tiny, ids_of(context + said + "q"))[1][len(ids_of(context)) - 1 :].all()
        )
        seen.add(expected)
    assert seen == {True, False}


def test_an_answer_ends_before_a_stop_and_at_its_longest(world: World) -> None:
    engine = ScriptedEngine(["one two three"])
    model = HarnessModel(
        engine, get_format("chatml"), (), StepProgress(world, 0, quiet=True), label="m", chat=False
    )
    assert model.generate_until(
        [*asked("a", {"until": " three"}), *asked("b", {"until": ["x"], "max_gen_toks": 3})]
    ) == [
        "one two",
        "one two",
    ]
    assert [(prompt.text, prompt.bos, prompt.stops) for prompt in engine.prompts] == [
        ("a", True, ()),
        ("b", True, ()),
    ], "bare text"


def test_what_is_too_long_loses_its_start(tiny: Path, world: World) -> None:
    model, tokenizer = adapter(tiny, world), tiny_tokenizer()
    context = "the lazy dog " * 150
    ids = tokenizer(context.rstrip() + " fox", add_special_tokens=False).input_ids
    assert len(ids) > 300
    scores, _ = by_transformers(tiny, ids[-257:])
    assert model.loglikelihood(asked(context.rstrip(), " fox"))[0][0] == pytest.approx(
        scores[-1].item(), abs=2e-3
    )
    assert isinstance(
        model.generate_until(asked(context, {"until": [], "max_gen_toks": 5}))[0], str
    )


def test_chats_are_written_in_the_models_own_format(tiny: Path, world: World) -> None:
    model = adapter(tiny, world, chat=True)
    turns = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]
    opening = (
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.apply_chat_template(turns) == opening
    assert (
        model.apply_chat_template(
            [*turns, {"role": "assistant", "content": "Well"}], add_generation_prompt=False
        )
        == opening + "Well"
    )
    assert model.tokenizer_name.startswith("template@") and model.chat_template(True) == "template"


def test_measures_become_results() -> None:
    def sample(number: int, filter: str = "none", **measures: Any) -> dict[str, Any]:
        return {
            "doc_id": number,
            "filter": filter,
            "filtered_resps": ["said"],
            "target": 1,
            "metrics": list(measures),
            **measures,
        }

    text = {
        "word_perplexity": (-8.0, 4),
        "byte_perplexity": (-8.0, 16),
        "bits_per_byte": (-8.0, 16),
    }
    found = {
        "samples": {
            "t": [sample(0, acc=1.0, f1=0.5), sample(0, "strict", acc=0.0)],
            "text": [sample(0, **text), sample(1, **text)],
        }
    }
    rows = {(row.task, row.kind): row for row in report.rows(results_of(found, "m", 8.0))}
    assert {key: row.score for key, row in rows.items()} == {
        ("t", "acc"): 1.0,
        ("t", "f1"): 0.5,
        ("t", "acc (strict)"): 0.0,
        ("text", "perplexity"): pytest.approx(math.e**2),
    }
    assert (
        rows["text", "perplexity"].bits_per_byte == pytest.approx(0.5 / math.log(2))
        and rows["t", "acc"].seconds == 2.0
    )


def test_a_model_that_was_interrupted_leaves_the_results_of_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(opened: Any, candidate: Any, *rest: Any) -> dict[str, Any]:
        if candidate.label == "alpaca-lora-7b":
            raise KeyboardInterrupt
        return {
            "samples": {
                "t": [
                    {
                        "doc_id": 0,
                        "filter": "none",
                        "filtered_resps": [],
                        "target": 1,
                        "metrics": ["acc"],
                        "acc": 1.0,
                    }
                ]
            }
        }

    monkeypatch.setattr(harness, "_tasks", lambda names, include, offline: {})
    monkeypatch.setattr(harness, "_evaluate", evaluate)
    outcome = run_harness(
        find_candidates(["smollm2", "alpaca-lora-7b"], {"engine": "scripted"}, world), ["t"], world
    )
    assert outcome.interrupted and [
        (result.model, result.kind, result.score) for result in outcome.results
    ] == [("smollm2", "acc", 1.0)]


def test_without_the_package_a_line_says_how_to_get_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        run_harness([], ["arc_easy"], world)
    assert caught.value.hint == "pip install 'lm-eval>=0.4.13,<0.5'"


YAML = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
metric_list: [{{metric: {metric}}}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Three tasks of our own and their data: nothing is fetched."""
    documents = [
        {"q": "the quick brown", "c": [" fox", " question"], "a": index % 2} for index in range(4)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, documents)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, kind, text, target, metric in (
        ("own_choice", "multiple_choice", "{{q}}", "{{a}}", "acc"),
        ("own_words", "generate_until", "{{q}}", "{{c[a]}}", "exact_match"),
        ("own_text", "loglikelihood_rolling", "", "{{q}}{{c[a]}}", "bits_per_byte"),
    ):
        more = {
            "multiple_choice": 'doc_to_choice: "{{c}}"\n',
            "generate_until": "generation_kwargs: {until: [zz], max_gen_toks: 6}\n",
        }
        yaml = YAML.format(
            name=name,
            data=tmp_path / "data.jsonl",
            kind=kind,
            text=text,
            target=target,
            metric=metric,
        )
        (folder / f"{name}.yaml").write_text(yaml + more.get(kind, ""))
    return folder


@pytest.mark.slow
def test_the_harness_itself_gets_the_scores_it_gets_from_transformers(
    tiny: Path, world: World, tasks: Path
) -> None:
    evaluator = pytest.importorskip("lm_eval.evaluator", reason="lm-eval is an extra")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    names = ["own_choice", "own_words", "own_text"]
    candidates = find_candidates([str(tiny)], FLAGS, world)
    outcome = run_harness(candidates, names, world, include=str(tasks), limit=3, quiet=True)
    ours = {row.task: row for row in report.rows(outcome.results)}
    assert {name: row.n for name, row in ours.items()} == dict.fromkeys(
        names, 3
    ) and outcome.error is None
    model = HFLM(pretrained=str(tiny), dtype="float32", device="cpu", batch_size=1)
    theirs = evaluator.simple_evaluate(
        model,
        tasks=names,
        limit=3,
        task_manager=TaskManager(include_path=str(tasks)),
        bootstrap_iters=0,
    )
    shown = theirs["results"]
    assert ours["own_choice"].score == pytest.approx(shown["own_choice"]["acc,none"])
    assert ours["own_words"].score == shown["own_words"]["exact_match,none"]
    assert ours["own_text"].bits_per_byte == pytest.approx(
        shown["own_text"]["bits_per_byte,none"], abs=1e-4
    )
    answers = [
        result.answer.rstrip("\ufffd") for result in outcome.results if result.task == "own_words"
    ]
    # At a cut-off inside a character, theirs shows the incomplete character and ours omits it.
    # Both show a byte that begins no character.
    assert answers == [
        sample["filtered_resps"][0].rstrip("\ufffd") for sample in theirs["samples"]["own_words"]
    ]
    with pytest.raises(UsageError, match="no task `own_choise`"):
        run_harness(candidates, ["own_choise"], world, include=str(tasks))
