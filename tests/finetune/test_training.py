"""Training for real, on tiny models: the loss, what is left behind, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lessons import lessons, write
from msgspec.structs import replace
from safetensors.torch import load_file
from support.architectures import config_of
from support.checkpoints import save_adapter, save_tiny, tiny_config
from support.training_runs import QUICK, run, task

from llmchat.engines import Chunk, Sampling
from llmchat.engines.transformers.pytorch import products
from llmchat.errors import Mismatch, OutOfResources, UsageError
from llmchat.finetune import training
from llmchat.finetune.examples import IGNORED, Example
from llmchat.finetune.recipes import get_recipe
from llmchat.finetune.run import finetune
from llmchat.finetune.training.batches import Collator, LengthGrouped, loss_of, rows_of
from llmchat.presets import find, preset_for
from llmchat.settings import Options, World

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(
        tmp_path_factory.mktemp("model"),
        tiny_config(max_position_embeddings=512, intermediate_size=128),
        seed=3,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "lessons.jsonl"
    write(
        path,
        [
            {key: row[key] for key in ("instruction", "input", "output")}
            for row in lessons(48, 0)[0]
        ],
    )
    return path


def weights(output: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(output / "adapter" / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma2", "rwkv", "mpt"])
def test_the_loss_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    """Left padding, positions from the mask and logits for the answers alone change nothing:
    compared row by row, without padding.
    """
    model: Any = transformers.AutoModelForCausalLM.from_config(config_of(name)).eval()
    torch.manual_seed(0)
    examples = []
    for length, prompt in ((9, 4), (17, 11), (12, 2)):
        ids = torch.randint(5, 300, (length,)).tolist()
        examples.append(Example(ids, [IGNORED] * prompt + ids[prompt:]))
    batch = Collator(model, pad=0)(rows_of(examples))
    assert batch.pop("tokens") == 38
    labels = batch.pop("labels")
    ours = loss_of(model(**batch), labels)
    total = 0.0
    for example in examples:
        alone = model(
            input_ids=torch.tensor([example.ids]), labels=torch.tensor([example.labels])
        ).loss
        total += float(alone.detach()) * example.learnt
    assert float(ours.detach()) == pytest.approx(
        total / sum(example.learnt for example in examples), rel=1e-4
    )


def test_the_order_of_rows_is_random_grouped_and_repeatable() -> None:
    lengths = [(index * 37) % 100 + 1 for index in range(203)]

    def order(epoch: int, grouped: bool = True) -> list[int]:
        sampler = LengthGrouped(lengths, 8, seed=5, grouped=grouped)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(0)) == list(range(203)) and order(0) == order(0) and order(0) != order(1)

    def padding(rows: list[int]) -> int:
        batches = [rows[start : start + 8] for start in range(0, len(rows), 8)]
        return sum(
            max(lengths[row] for row in batch) * len(batch) - sum(lengths[row] for row in batch)
            for batch in batches
        )

    assert padding(order(0)) < padding(order(0, grouped=False)) / 5


def test_what_a_run_leaves_behind(world: World, base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "pupil"
    outcome = run(world, base, data, output, replace(QUICK, max_steps=30), samples=2)
    losses = [loss for _, _, loss in outcome.trained.curve if loss is not None]
    assert losses[-1] < losses[0] * 0.95 and outcome.trained.best_loss == pytest.approx(
        min(losses)
    ), "it learns"
    assert (outcome.counts.records, outcome.counts.trained_on, outcome.counts.held_out) == (
        48,
        40,
        8,
    )
    assert json.loads((output / "adapter/adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(base)
    page = (output / "report.html").read_text()
    assert (
        "<polyline" in page
        and "48: 40 trained on, 8 held out" in page
        and outcome.samples[0].wanted in page
    )
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG") and json.loads(
        (output / "run.json").read_text()
    )["name"] == "pupil"
    preset = find("pupil", world.own_presets)
    assert (
        preset.format.name == "alpaca"
        and preset.adapters[-1].repo == str(output / "adapter")
        and preset.base.repo == str(base)
    )
    assert len(outcome.samples) == 2 and outcome.samples[0].before != outcome.samples[0].after, (
        "the preset's adapter changes what is said"
    )
    assert said(preset, world) == said(
        preset_for(Options(model=str(base), adapter=str(output / "adapter"), format="alpaca")),
        world,
    )


def said(preset: Any, world: World) -> str:
    from llmchat.conversation import Conversation
    from llmchat.models.loading import load
    from llmchat.models.locate import locate
    from llmchat.reply import reply

    model = locate(replace(preset, weights="fp32"), world)
    events = reply(
        Conversation().say("Who has the map now?", "Anna gave the map to Leon."),
        model.preset,
        load(model, Options(device="cpu")),
        Sampling(0, max_tokens=12),
    )
    return "".join(event.text for event in events if isinstance(event, Chunk))


def test_the_same_run_twice_is_the_same(
    world: World, base: Path, data: Path, tmp_path: Path
) -> None:
    first, second = (run(world, base, data, tmp_path / name) for name in ("a", "b"))
    assert first.trained.curve == second.trained.curve
    assert all(
        torch.equal(one, weights(tmp_path / "b")[name])
        for name, one in weights(tmp_path / "a").items()
    )


KILLED = """
import sys, torch
torch.set_num_threads(1)
sys.path[:0] = {path!r}
from pathlib import Path
from support.training_runs import QUICK, run
from support.worlds import make_world
run(make_world(Path({home!r})), Path({base!r}), Path({data!r}), Path({output!r}), samples=0)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_end(
    world: World, base: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    code = KILLED.format(
        path=sys.path,
        home=str(tmp_path / "home"),
        base=str(base),
        data=str(data),
        output=str(output),
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    deadline = time.monotonic() + 120
    while (
        not (output / "checkpoints/checkpoint-3").exists()
        and time.monotonic() < deadline
        and child.poll() is None
    ):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was killed in the middle"
    half = output / "checkpoints/checkpoint-99"
    half.mkdir()
    (half / "trainer_state.json").write_text("{}")
    whole = run(world, base, data, tmp_path / "whole")
    resumed = run(world, base, data, output)
    assert not half.exists(), "a checkpoint that is half written is not taken up"
    assert (
        resumed.trained.steps == whole.trained.steps
        and resumed.trained.curve == whole.trained.curve
    )
    assert all(
        torch.equal(one, weights(output)[name]) for name, one in weights(tmp_path / "whole").items()
    )


def test_the_folder_of_another_run_is_refused(
    world: World, base: Path, data: Path, tmp_path: Path
) -> None:
    run(world, base, data, tmp_path / "out", replace(QUICK, max_steps=1))
    with pytest.raises(UsageError, match="holds another run"):
        run(world, base, data, tmp_path / "out", replace(QUICK, max_steps=2))
    assert (
        run(
            world, base, data, tmp_path / "out", replace(QUICK, max_steps=2), overwrite=True
        ).trained.steps
        == 2
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"base": "int8"}, {"base": "int4"}, {"base": "bf16"}, {"dora": True}, {"rslora": True},
        {"checkpointing": True}, {"targets": ("q_proj", "v_proj")},
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_base_and_adapter_trains_and_chats(
    changes: dict[str, Any], world: World, base: Path, data: Path, tmp_path: Path
) -> None:
    outcome = run(world, base, data, tmp_path / "out", replace(QUICK, max_steps=2, **changes))
    assert outcome.trained.steps == 2 and all(
        loss == loss for _, loss, _ in outcome.trained.curve if loss is not None
    )
    assert any(
        tensor.any() for name, tensor in weights(tmp_path / "out").items() if "lora_B" in name
    )
    assert isinstance(said(find("out", world.own_presets), world), str)


@pytest.mark.parametrize(
    ("kind", "multiplies", "memory", "expected"),
    [
        ("bf16", True, 2**40, torch.bfloat16),
        ("bf16", False, 2**40, torch.float32),
        ("bf16", False, 2**16, torch.bfloat16),
        ("nf4", False, 2**16, torch.float32),
        ("fp32", True, 2**16, torch.float32),
    ],
)
def test_a_base_in_bf16_is_widened_where_it_helps_and_fits(
    kind: str,
    multiplies: bool,
    memory: int,
    expected: torch.dtype,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_cpu_multiplies_bf16", lambda: multiplies)
    monkeypatch.setattr(training, "installed_ram", lambda: memory)
    course = training.Course(
        base, (), "base", [], [], replace(get_recipe("default"), base=kind), tmp_path, cpu=True
    )
    assert training._dtype(course) == expected


def test_an_adapter_on_an_adapter(world: World, base: Path, data: Path, tmp_path: Path) -> None:
    """The new one is trained on the merged base, and its preset puts both on, in order."""
    first = save_adapter(tmp_path / "first", base)
    job = task(base, data, tmp_path / "out", replace(QUICK, max_steps=2))
    job = replace(
        job,
        preset=preset_for(
            Options(model=str(base), adapter=str(first), format="alpaca", weights="fp32")
        ),
    )
    finetune(job, world)
    assert [source.repo for source in find("out", world.own_presets).adapters] == [
        str(first),
        str(tmp_path / "out/adapter"),
    ]
    plain = run(world, base, data, tmp_path / "plain", replace(QUICK, max_steps=2))
    both = json.loads((tmp_path / "out/run.json").read_text())
    assert both["trained"]["curve"][0][1] != plain.trained.curve[0][1], (
        "the loss begins from the adapted base"
    )


@pytest.mark.slow
def test_running_out_of_memory_makes_the_micro_batch_smaller(
    world: World, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transformers.LlamaForCausalLM.forward

    def greedy(self: Any, input_ids: torch.Tensor, **more: Any) -> Any:
        if input_ids.shape[0] > limit:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            )
        return original(self, input_ids=input_ids, **more)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", greedy)
    limit = 1
    outcome = run(world, base, data, tmp_path / "out", replace(QUICK, max_steps=3, evaluation=0))
    assert outcome.trained.micro_batch == 1 and outcome.trained.steps == 3
    limit = 0
    with pytest.raises(OutOfResources, match="memory ran out with one record at a time"):
        run(world, base, data, tmp_path / "never", replace(QUICK, max_steps=3, evaluation=0))


@pytest.mark.slow
def test_early_stopping(world: World, base: Path, data: Path, tmp_path: Path) -> None:
    outcome = run(
        world,
        base,
        data,
        tmp_path / "out",
        replace(QUICK, max_steps=200, learning_rate=0.9, patience=2),
    )
    assert outcome.trained.stopped_early and outcome.trained.steps < 200


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "empty"),
        ("not json", "bad.jsonl"),
        ('{"instruction": "a", "input": ""}\n', "bad.jsonl"),
        (
            '{"instruction": "a", "input": "", "output": "b"}\n'
            '{"instruction": 5, "input": "", "output": "b"}\n',
            "bad.jsonl:2",
        ),
    ],
)
def test_bad_data_is_told_before_a_model_is_loaded(
    content: str,
    line: str,
    world: World,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *a, **b: pytest.fail("a model was loaded"),
    )
    with pytest.raises(UsageError) as refused:
        run(world, base, path, tmp_path / "out")
    assert line in f"{refused.value.message}" and not (tmp_path / "out").exists()


def test_what_cannot_be_trained_is_refused(
    world: World, base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(Mismatch, match=r"no linear layers named .*Wqkv.*"):
        run(world, base, data, tmp_path / "a", replace(QUICK, targets=("Wqkv",)))
    with pytest.raises(UsageError, match=r"none of the \d+ records is shorter than 8 tokens"):
        run(world, base, data, tmp_path / "b", replace(QUICK, cutoff=8))
    t5 = save_tiny(tmp_path / "t5", config_of("t5"))
    with pytest.raises(Mismatch, match="encoder-decoder"):
        run(world, t5, data, tmp_path / "c")


def test_hooks_that_are_not_there(
    world: World, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="unknown reporting hook `tensorbord`") as refused:
        run(world, base, data, tmp_path / "out", report_to=("tensorbord",))
    assert "`tensorboard`" in refused.value.hint
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb is not installed"):
        run(world, base, data, tmp_path / "out", report_to=("wandb",))
