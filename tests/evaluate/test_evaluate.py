"""Evaluate models on items, with three kinds of model.

A scripted engine; tiny checkpoints, compared with transformers; the real default model, by command.
"""

import gc
import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from support.checkpoints import save_adapter, save_tiny, tiny_tokenizer
from support.command_line import LLMCHAT, Run
from support.scripted_models import LIVE, SCRIPTED, TWO
from transformers import AutoModelForCausalLM, T5Config

from llmchat.conversation import Message
from llmchat.engines.capabilities import ScoringEngine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import OutOfResources, UsageError
from llmchat.evaluate import AskOptions, Item, ResultFile, read_tasks, report
from llmchat.evaluate import run as run_items
from llmchat.evaluate.candidates import find_candidates, split_word
from llmchat.evaluate.measure import Result, ask, bare, score_choices, score_text, scorer
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.presets import find
from llmchat.prompt import Parts, Prompt, PromptFormat
from llmchat.settings import World


def quiz(tmp_path: Path, world: World, count: int = 4) -> list[Item]:
    (tmp_path / "quiz.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"q{number}", "answer": f"a{number}"}) + "\n"
            for number in range(count)
        )
    )
    return read_tasks(world, str(tmp_path / "quiz.jsonl"))


def right_but(*wrong: tuple[str, str]) -> Callable[[str, str], str]:
    return lambda model, question: (
        "no idea" if (model, question) in wrong else question.replace("q", "a")
    )


def test_one_model_is_in_memory_at_a_time_and_the_table_says_who_is_better(
    tmp_path: Path, world: World, scripted_models: Any
) -> None:
    loaded = scripted_models(
        right_but(("smollm2", "q1"), ("smollm2", "q2"), ("alpaca-lora-7b", "q3"))
    )
    candidates = find_candidates([*TWO, "alpaca-lora-7b:off"], SCRIPTED, world)
    outcome = run_items(candidates, quiz(tmp_path, world), AskOptions(), world, ResultFile(None))
    assert loaded == ["smollm2", "alpaca-lora-7b", "alpaca-lora-7b"] and not LIVE, (
        "the last one is gone too"
    )
    assert [(row.model, row.n, row.score) for row in report.rows(outcome.results)] == [
        ("smollm2", 4, 0.5), ("alpaca-lora-7b", 4, 0.75), ("alpaca-lora-7b:off", 4, 0.75),
    ]  # fmt: skip
    assert [report.sentence(one) for one in report.differences(outcome.results, "smollm2")] == [
        f"quiz exact: {name} against smollm2: +25.0 points "
        "(95 %: -46.1 to +74.7, 2 gained, 1 lost, p = 1; n = 4): no clear difference"
        for name in ("alpaca-lora-7b", "alpaca-lora-7b:off")
    ]
    assert world.stderr.getvalue().splitlines() == [
        "smollm2: 4 items",
        "alpaca-lora-7b: 4 items",
        "alpaca-lora-7b:off: 4 items",
    ]  # type: ignore[attr-defined]


def test_a_clear_difference_is_called_one(
    tmp_path: Path, world: World, scripted_models: Any
) -> None:
    scripted_models(
        lambda model, question: "wrong" if model == "smollm2" else question.replace("q", "a")
    )
    outcome = run_items(
        find_candidates(TWO, SCRIPTED, world),
        quiz(tmp_path, world, 12),
        AskOptions(),
        world,
        ResultFile(None),
        quiet=True,
    )
    (one,) = report.differences(outcome.results, "smollm2")
    (back,) = report.differences(outcome.results, "alpaca-lora-7b")
    assert (one.verdict, back.verdict) == ("better", "worse") and one.paired.p == pytest.approx(
        2 / 2**12
    )
    assert world.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_an_interrupted_run_keeps_what_was_done_and_goes_on(
    tmp_path: Path, world: World, scripted_models: Any
) -> None:
    file, items, candidates = (
        tmp_path / "out.jsonl",
        quiz(tmp_path, world),
        find_candidates(TWO, SCRIPTED, world),
    )
    loaded = scripted_models(
        lambda model, question: (
            KeyboardInterrupt()
            if (model, question) == ("alpaca-lora-7b", "q1")
            else question.replace("q", "a")
        )
    )
    first = run_items(candidates, items, AskOptions(), world, ResultFile(file), quiet=True)
    assert first.interrupted and len(first.results) == 5 and len(file.read_text().splitlines()) == 5
    file.write_text(file.read_text() + '{"key": "half a li')
    with pytest.raises(UsageError, match="is there already"):
        ResultFile(file)
    del first
    gc.collect()
    loaded.clear()
    asked: list[str] = []
    scripted_models(lambda model, question: asked.append(f"{model} {question}") or "late")
    second = run_items(candidates, items, AskOptions(), world, ResultFile(file, resume=True))
    assert asked == ["alpaca-lora-7b q1", "alpaca-lora-7b q2", "alpaca-lora-7b q3"] and loaded == []
    assert world.stderr.getvalue().splitlines() == [
        "smollm2: 0 items, 4 kept from before",
        "alpaca-lora-7b: 3 items, 1 kept from before",
    ]  # type: ignore[attr-defined]
    assert [row.score for row in report.rows(second.results)] == [1.0, 0.25] and len(
        file.read_text().splitlines()
    ) == 8
    asked.clear()
    run_items(
        find_candidates(TWO, SCRIPTED | {"max_tokens": 9}, world),
        items,
        AskOptions(),
        world,
        ResultFile(file, resume=True),
        quiet=True,
    )
    assert len(asked) == 8, "with another sampling these are other results"


def test_an_error_ends_the_run_and_loses_nothing(
    tmp_path: Path, world: World, scripted_models: Any
) -> None:
    scripted_models(
        lambda model, question: OutOfResources("too large") if model == "alpaca-lora-7b" else "a0"
    )
    outcome = run_items(
        find_candidates(TWO, SCRIPTED, world),
        quiz(tmp_path, world),
        AskOptions(),
        world,
        ResultFile(None),
        quiet=True,
    )
    assert (
        len(outcome.results) == 4
        and isinstance(outcome.error, OutOfResources)
        and not outcome.interrupted
    )
    with pytest.raises(UsageError, match="--resume continues a file"):
        ResultFile(None, resume=True)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match=r"other.jsonl, line 1 is not a result"):
        ResultFile(tmp_path / "other.jsonl", resume=True)


def test_an_item_that_is_too_large_counts_as_wrong_and_is_told(
    tmp_path: Path, world: World, scripted_models: Any
) -> None:
    scripted_models(right_but())
    items = quiz(tmp_path, world)
    items[0] = replace(items[0], messages=(Message("user", "word " * 3000),))
    outcome = run_items(
        find_candidates(["smollm2"], SCRIPTED, world),
        items,
        AskOptions(),
        world,
        ResultFile(None),
        quiet=True,
    )
    (row,) = report.rows(outcome.results)
    assert (
        (row.score, row.errors) == (0.75, 1)
        and "not asked 1" in report.cells(row)["also"]
        and "window" in outcome.results[0].error
    )


def test_words_for_models(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        split_word("a") == ("a", None)
        and split_word("a:off") == ("a", "none")
        and split_word("a+b/c:0.5") == ("a", "b/c:0.5")
    )
    monkeypatch.chdir(tmp_path)
    Path("c++").mkdir()
    assert split_word("c++") == ("c++", None)
    for wrong in ("+a", "a+"):
        with pytest.raises(UsageError, match="does not name a model"):
            split_word(wrong)
    with pytest.raises(UsageError, match="a is named twice"):
        find_candidates(["a", "b", "a"], {}, world)


def test_answers_that_are_drawn_have_a_seed_of_their_own_each(tmp_path: Path, world: World) -> None:
    engine = ScriptedEngine(["x"])
    seeds: list[Any] = []
    stream = engine.stream
    engine.stream = lambda prompt, sampling: (
        seeds.append(sampling.seed),
        stream(prompt, sampling),
    )[1]  # type: ignore[method-assign]
    (candidate,) = find_candidates(["smollm2"], SCRIPTED | {"temperature": 1.0}, world)
    for item in quiz(tmp_path, world, 2):
        ask(item, OpenModel(candidate.preset, engine, {}), AskOptions(seed=40))
    assert seeds == [41, 42]


# Likelihoods, against transformers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def opened(tiny: Path, world: World) -> OpenModel:
    return ModelOpener(world, {"model": str(tiny), "weights": "fp32", "device": "cpu"}).open()


def log_probabilities(folder: Path, ids: list[int]) -> torch.Tensor:
    """Of each token after the ones before it, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def scores_of(opened: OpenModel) -> ScoringEngine:
    return scorer(opened.engine)


def test_a_choice_is_as_likely_as_transformers_says(tiny: Path, opened: OpenModel) -> None:
    question, choices = "question and answer, which?", ["the fox", "the lazy dog jumps"]
    tokenizer = tiny_tokenizer()
    expected = []
    for choice in choices:
        turns = [{"role": "user", "content": question}]
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(f"{before}{choice}<|im_end|>", add_special_tokens=False).input_ids
        start = len(tokenizer(before, add_special_tokens=False).input_ids)
        expected.append(log_probabilities(tiny, ids)[start - 1 :].sum().item())
    scores = score_choices(
        scores_of(opened), opened.preset.format, (Message("user", question),), choices
    )
    assert [score.sum for score in scores] == pytest.approx(expected, abs=2e-3)
    assert [score.bytes for score in scores] == [7, 18] and scores[0].per_byte == scores[0].sum / 7
    item = Item("t", "choice", 1, "", (Message("user", question),), choices=tuple(choices), right=1)
    result = ask(item, opened, AskOptions())
    likeliest = max(range(2), key=lambda index: expected[index])
    by_byte = max(range(2), key=lambda index: expected[index] / len(choices[index]))
    assert (result.score, result.normalised, result.answer) == (
        float(likeliest == 1),
        float(by_byte == 1),
        choices[likeliest],
    )


def test_a_token_over_the_border_belongs_to_the_answer_for_every_choice(
    tiny: Path, opened: OpenModel
) -> None:
    """The prompt's last space is scored with each choice.

    It is one token with ` the`, but a separate token before `!`.
    """
    form = PromptFormat("border", parts=Parts(user="{text}", cue=" ", end="</s>"))
    encode = opened.engine.encode
    asked, merged, alone = (
        encode(Prompt(text, (), bos=False)) for text in ("fox ", "fox the</s>", "fox !</s>")
    )
    assert merged[: len(asked)] != asked and alone[: len(asked)] == asked, "the example is one"
    border = len(asked) - 1
    scores = score_choices(scores_of(opened), form, (Message("user", "fox"),), ["the", "!"])
    expected = [log_probabilities(tiny, ids)[border - 1 :].sum().item() for ids in (merged, alone)]
    assert [score.sum for score in scores] == pytest.approx(expected, abs=2e-3)
    assert [score.tokens for score in scores] == [len(merged) - border, len(alone) - border]


def test_a_text_is_read_behind_its_opening_token_and_counted_in_bytes(
    tiny: Path, opened: OpenModel, world: World
) -> None:
    text = "The quick brown fox, a naïve <|im_end|> one."
    tokens = tiny_tokenizer().backend_tokenizer
    tokens.encode_special_tokens = True
    ids = [1, *tokens.encode(text, add_special_tokens=False).ids]
    (candidate,) = find_candidates([str(tiny)], {"weights": "fp32"}, world)
    assert (
        candidate.opening == ("<s>", "</s>") and bare(opened.engine, text, candidate.opening) == ids
    )
    result = ask(
        Item("t", "perplexity", 1, "", text=text), opened, AskOptions(), opening=candidate.opening
    )
    assert result.score == pytest.approx(-log_probabilities(tiny, ids).sum().item(), abs=2e-3)
    assert (result.tokens, result.bytes) == (len(ids) - 1, len(text.encode()))
    (row,) = report.rows([result])
    assert (
        row.score == pytest.approx(math.exp(result.score / result.tokens)) and row.interval is None
    )
    assert row.bits_per_byte == pytest.approx(result.score / math.log(2) / result.bytes)


def test_a_long_text_is_read_in_windows_and_every_token_counts_once(
    tiny: Path, opened: OpenModel
) -> None:
    ids = [1, *(index % 300 + 10 for index in range(99))]
    scores = score_text(scores_of(opened), ids, 32)
    expected = log_probabilities(tiny, ids[:32]).tolist()
    while len(expected) < 99:
        first = len(expected) + 1
        expected += log_probabilities(tiny, ids[first - 16 : first + 16])[15:].tolist()
    assert scores == pytest.approx(expected, abs=2e-3) and len(scores) == 99
    assert score_text(scores_of(opened), [1], 32) == []


def test_an_encoder_decoder_answers_and_has_no_likelihoods(tmp_path: Path, world: World) -> None:
    size = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 320,
    }
    folder = save_tiny(
        tmp_path / "t5", T5Config(**size, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2)
    )
    tasks = tmp_path / "t.jsonl"
    tasks.write_text('{"prompt": "q", "answer": "a"}\n{"text": "some words"}\n')
    candidates = find_candidates(
        [str(folder)], {"weights": "fp32", "device": "cpu", "max_tokens": 4}, world
    )
    outcome = run_items(
        candidates, read_tasks(world, str(tasks)), AskOptions(), world, ResultFile(None), quiet=True
    )
    assert [(result.kind, result.reply_tokens > 0) for result in outcome.results] == [
        ("exact", True)
    ]
    assert outcome.error and "cannot score a text" in outcome.error.message


def test_an_engine_without_likelihoods_says_so() -> None:
    item = Item("t", "perplexity", 1, "", text="a")
    with pytest.raises(UsageError, match="scripted gives no likelihoods"):
        ask(item, OpenModel(find("smollm2"), ScriptedEngine(), {}), AskOptions())


def test_perplexities_are_compared_by_bits_of_the_same_bytes() -> None:
    def result(model: str, item: int, nats: float) -> Result:
        return Result(
            "", model, "t", "perplexity", item, nats, tokens=10 if model == "a" else 20, bytes=40
        )

    found = [
        result("a", 1, 20),
        result("a", 2, 22),
        result("a", 3, 21),
        result("b", 1, 10),
        result("b", 2, 11.5),
        result("b", 3, 11),
    ]
    (one,) = report.differences(found, "a")
    assert one.verdict == "better" and one.paired.difference == pytest.approx(
        (32.5 - 63) / math.log(2) / 120
    )
    assert report.sentence(one).startswith(
        "t perplexity: b against a: -0.367 bits per byte (95 %: -0.3"
    )


# Whole commands


TEXTS = (
    "The cat sat on the mat and looked at the moon.",
    "It was the best of times, it was the worst of times.",
    "Water boils at one hundred degrees, and freezes at zero.",
    "She opened the door, and there was nobody in the room.",
    "The train to London leaves at nine o'clock in the morning.",
)


@pytest.mark.slow
def test_a_whole_evaluation_of_the_default_model(
    smol: Run, smol_home: Path, tmp_path: Path
) -> None:
    base = next((smol_home / "cache" / "models").iterdir())
    adapter = save_adapter(tmp_path / "adapter", base, std=0.3)
    tasks = [
        {"task": "capitals", "kind": "contains"},
        {"prompt": "What is the capital of France?", "answer": "paris"},
        {
            "prompt": "The capital of France?",
            "choices": ["Paris is the capital of France.", "xq zzv jjj"],
            "answer": 0,
        },
        *({"text": text, "task": "text"} for text in TEXTS),
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    named = [*("-m", "smollm2"), *("-m", f"smollm2+{adapter}")]
    done = smol(
        "evaluate",
        *named,
        "--tasks",
        str(tmp_path / "tasks.jsonl"),
        "--fold",
        "case",
        "-o",
        str(tmp_path / "out.jsonl"),
    )
    assert done.returncode == 0 and done.stderr == f"smollm2: 7 items\nsmollm2+{adapter}: 7 items\n"
    table, told = done.stdout.split("\n\n")
    cells = [line.split("\t") for line in table.splitlines()]
    assert [row[:4] for row in cells] == [
        [task, kind, model, n]
        for task, kind, n in (
            ("capitals", "contains", "1"),
            ("capitals", "choice", "1"),
            ("text", "perplexity", "5"),
        )
        for model in ("smollm2", f"smollm2+{adapter}")
    ]
    assert (
        cells[0][4:6] == ["100.0 %", "20.7 % – 100.0 %"]
        and cells[2][4] == "100.0 %"
        and 1 < float(cells[4][4]) < float(cells[5][4])
    )
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "capitals contains",
        "capitals choice",
        "text perplexity",
    ]
    assert [line.rpartition(": ")[2] for line in told.splitlines()] == [
        *["no clear difference"] * 2,
        "worse",
    ], "a random adapter harms"
    again = smol(
        "evaluate",
        *named,
        "--tasks",
        str(tmp_path / "tasks.jsonl"),
        "--fold",
        "case",
        "-o",
        str(tmp_path / "out.jsonl"),
        "--resume",
        "--json",
    )
    report = json.loads(again.stdout)
    assert again.stderr.startswith("smollm2: 0 items, 7 kept from before\n") and [
        row["n"] for row in report["rows"]
    ] == [1, 1, 1, 1, 5, 5]
    assert [one["label"] for one in report["models"]] == [
        "smollm2",
        f"smollm2+{adapter}",
    ] and report["models"][1]["adapters"] == [f"{adapter}@"]
    assert (
        "Paris" in report["items"][0]["answer"]
        and report["differences"][2]["unit"] == "bits per byte"
    )


def test_ctrl_c_prints_the_table_so_far(smol: Run, env: dict[str, str], tmp_path: Path) -> None:
    lines = [
        json.dumps({"prompt": f"Count to {number}.", "answer": "1", "kind": "contains"})
        for number in range(500)
    ]
    (tmp_path / "count.jsonl").write_text("\n".join(lines))
    words = [
        "evaluate",
        "-m",
        "smollm2",
        "--tasks",
        str(tmp_path / "count.jsonl"),
        "-o",
        str(tmp_path / "out.jsonl"),
        "--max-tokens",
        "8",
    ]
    process = subprocess.Popen(
        [*LLMCHAT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    deadline = time.monotonic() + 60
    out = tmp_path / "out.jsonl"
    while time.monotonic() < deadline and (not out.exists() or out.read_text().count("\n") < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    table, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and table.startswith("count\tcontains\tsmollm2\t")
        and 3 <= int(table.split("\t")[3]) < 500
    )


def test_mistakes_are_told_before_a_model_is_loaded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "answer": "a"}\n{"prompt": "q"}\n')
    tasks = ("--tasks", str(tmp_path / "t.jsonl"))
    done = run("evaluate", "-m", "smollm2", *tasks)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/t.jsonl, item 2 (line 2): `answer` is missing\n",
    )
    done = run("evaluate", "-m", "smollm2", *tasks, "--limit", "1", "--fold", "cases")
    assert (done.returncode, done.stderr) == (
        2,
        "error: invalid value `cases` for --fold\nhint: did you mean `case`?\n",
    )
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "answer": "a"}\n')
    assert run("evaluate", "-m", "smollm2", *tasks).returncode == 3, "not pulled"
    for words in (["evaluate", *tasks, "-o"], ["compare", "hi", "--html"]):
        done = run(*words, f"{tmp_path}/nowhere/file", "-m", "smollm2", "--engine", "scripted")
        assert (done.returncode, done.stdout, done.stderr) == (
            2,
            "",
            f"error: {tmp_path}/nowhere/file cannot be written: No such file or directory\n",
        )
    assert run("evaluate", "-m", "smollm2", *tasks, "--harness", "arc_easy").returncode == 2
    done = run(
        "evaluate",
        "-m",
        "smollm2",
        "-m",
        "alpaca-lora-7b",
        "--engine",
        "scripted",
        *tasks,
        "--kind",
        "contains",
        "-q",
    )
    assert done.returncode == 0 and done.stderr == ""
    (tmp_path / "p.jsonl").write_text('{"text": "some words"}\n')
    done = run(
        "evaluate",
        "-m",
        "smollm2",
        "--engine",
        "scripted",
        *tasks,
        "--tasks",
        str(tmp_path / "p.jsonl"),
        "-q",
    )
    assert (
        done.returncode == 2
        and done.stdout.startswith("t\texact\tsmollm2\t1\t0.0 %")
        and "gives no likelihoods" in done.stderr
    )
