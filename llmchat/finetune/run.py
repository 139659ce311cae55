"""One fine-tuning run: read data, make examples, train, sample before and after, write a preset.

Everything is in one output folder: adapter/ (peft's form), preset.toml, report.html,
loss.png or loss.svg, run.json and checkpoints/.
"""

import hashlib
import importlib.util
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Sampling
from llmchat.errors import Mismatch, UsageError, did_you_mean
from llmchat.finetune.data import read, split
from llmchat.finetune.examples import Examples, write_examples
from llmchat.finetune.records import Record
from llmchat.finetune.types import Counts, Outcome, Sample, Task, Trained
from llmchat.models.loading import load, tokenizer
from llmchat.models.locate import Model, locate
from llmchat.presets import Preset, Source
from llmchat.settings import Options, World

# The Trainer's own reporting hooks, by library name.
HOOKS = ("tensorboard", "wandb")


def finetune(task: Task, world: World) -> Outcome | None:
    """Train an adapter, or resume an interrupted run.

    The data is read and its errors are reported before the model is loaded. Of several processes
    (`accelerate launch`), only the first writes results; the others return None.
    """
    _check_hooks(task.report_to)
    model = _base(task.preset, world)
    records = list(
        read(task.data, task.data_format, world, seed=task.recipe.seed, language=task.language)
    )
    if not records:
        raise UsageError(f"{', '.join(task.data)} holds no records")
    taught, kept = _held_out(records, task, world)
    tokens = tokenizer(model)
    train, held_out = (
        write_examples(part, model.preset.format, tokens, task.recipe) for part in (taught, kept)
    )
    if not train.examples:
        raise UsageError(
            f"none of the {len(taught)} records is shorter than {task.recipe.cutoff} tokens",
            "--cutoff allows longer ones",
        )
    if not _leads(world):
        _train(task, model, train, held_out, world)
        return None
    _claim(task, model, train, held_out)
    asked = [record for record in kept if record.messages][: task.samples]
    before = _answers(model, asked, task, world, "before")
    trained = _train(task, model, train, held_out, world)
    _forget_answers(task, "after")
    after = _answers(_tuned(model, task), asked, task, world, "after")
    samples = tuple(
        _sample(record, *said) for record, *said in zip(asked, before, after, strict=True)
    )
    counts = Counts(
        len(records),
        len(train.examples),
        len(held_out.examples),
        train.skipped + held_out.skipped,
        train.cut,
        train.tokens,
    )
    return _leave(task, model, counts, trained, samples, world)


def _held_out(records: list[Record], task: Task, world: World) -> tuple[list[Record], list[Record]]:
    """Training and held-out records; a count that takes most of a small set becomes a tenth."""
    wanted = task.recipe.evaluation
    if not wanted:
        return records, []
    if wanted >= 1 and wanted > len(records) / 2:
        print(
            f"note: a tenth of the {len(records):,} records is held out, not {wanted:,.0f}",
            file=world.stderr,
        )
        wanted = 0.1
    return split(records, wanted if wanted < 1 else int(wanted), task.recipe.seed)


def _leads(world: World) -> bool:
    """Whether this is the only process, or the first one of `accelerate launch`."""
    return world.env.get("RANK", "0") == "0"


def _check_hooks(names: Sequence[str]) -> None:
    """Refuse an unknown reporting hook, or one whose library is missing, before reading data."""
    for name in names:
        if name not in HOOKS:
            raise UsageError(
                f"unknown reporting hook `{name}`",
                did_you_mean(name, HOOKS) or f"there are {', '.join(HOOKS)}",
            )
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"{name} is not installed", f"pip install {name}")


def _base(preset: Preset, world: World) -> Model:
    model = locate(preset, world)
    if model.base is None:
        raise Mismatch(f"models of the engine `{preset.engine}` cannot be trained")
    return model


def _claim(task: Task, model: Model, train: Examples, held_out: Examples) -> None:
    """Claim the output folder; refuse another run's, whose checkpoints would be resumed."""
    mark = hashlib.sha256()
    for part in (
        model.preset.base,
        model.preset.adapters,
        msgspec.structs.replace(task.recipe, micro_batch=1),
    ):
        mark.update(msgspec.json.encode(part))
    for example in (*train.examples, *held_out.examples):
        mark.update(msgspec.json.encode(example))
    path = task.output / "run.id"
    if path.exists() and path.read_text() != mark.hexdigest():
        if not task.overwrite:
            raise UsageError(
                f"{task.output} holds another run (other data, base or settings)",
                "another --output, or --overwrite to replace it",
            )
        shutil.rmtree(task.output)
    task.output.mkdir(parents=True, exist_ok=True)
    path.write_text(mark.hexdigest())


def _train(task: Task, model: Model, train: Examples, held_out: Examples, world: World) -> Trained:
    # peft loads bitsandbytes, whose notes about missing kernels do not matter for training.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from llmchat.finetune.training import Course, Meter
    from llmchat.finetune.training import train as run

    assert model.base is not None
    course = Course(
        base=model.base.path,
        adapters=tuple(adapter.path for adapter in model.adapters),
        base_name=model.preset.base.repo,
        train=train.examples,
        held_out=held_out.examples,
        recipe=task.recipe,
        output=task.output,
        cpu=task.device == "cpu",
        report_to=task.report_to,
    )
    meter = Meter(world, quiet=task.quiet, plot=task.live_plot)
    try:
        return run(course, meter)
    finally:
        meter.close()


def _tuned(model: Model, task: Task) -> Model:
    """The model with the new adapter on top of its own ones, merged in memory."""
    from llmchat.hub import Checkpoint

    folder = task.output.resolve() / "adapter"
    source = Source("path", str(folder))
    preset = replace(model.preset, adapters=(*model.preset.adapters, source), adapter_scale=1.0)
    return replace(
        model,
        preset=preset,
        adapters=(*model.adapters, Checkpoint(folder, source, "", 0)),
        world=None,
    )


def _answers(
    model: Model, records: Sequence[Record], task: Task, world: World, when: str
) -> list[str]:
    """The model's answers to these records, as in a chat; kept for a resumed run."""
    from llmchat.reply import reply

    path = task.output / f"answers-{when}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    answers = []
    if records:
        engine = load(model, Options(device=task.device))
        for record in records:
            conversation = Conversation(record.messages[:-1])
            events = reply(
                conversation, model.preset, engine, Sampling(temperature=0, max_tokens=128)
            )
            answers.append("".join(event.text for event in events if isinstance(event, Chunk)))
        engine.unload()
    path.write_bytes(msgspec.json.encode(answers))
    return answers


def _forget_answers(task: Task, when: str) -> None:
    (task.output / f"answers-{when}.json").unlink(missing_ok=True)


def _sample(record: Record, before: str, after: str) -> Sample:
    question = record.messages[-2]
    return Sample(
        "\n\n".join(filter(None, (question.text, question.input))),
        record.messages[-1].text,
        before,
        after,
    )


def _leave(
    task: Task,
    model: Model,
    counts: Counts,
    trained: Trained,
    samples: tuple[Sample, ...],
    world: World,
) -> Outcome:
    """Write the preset, the report and run.json."""
    from llmchat.finetune.report import write_report

    name = task.output.resolve().name
    preset = task.output / "preset.toml"
    preset.write_bytes(_preset(task, model, name))
    assert model.base is not None
    outcome = Outcome(
        name=name,
        base=model.preset.base.repo,
        base_revision=model.base.revision,
        format=model.preset.format.name,
        recipe=task.recipe,
        data=task.data,
        counts=counts,
        trained=trained,
        samples=samples,
        preset_file=_install(preset, name, world),
    )
    (task.output / "run.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(outcome), indent=2)
    )
    write_report(outcome, task.output)
    return outcome


def _preset(task: Task, model: Model, name: str) -> bytes:
    """A preset that chats with the adapter in the format it was trained in."""
    old = model.preset
    table: dict[str, Any] = {
        "title": f"{old.title or old.name}, tuned on {', '.join(task.data)}",
        "format": old.format.name
        if old.format.name in _shipped_formats()
        else msgspec.to_builtins(old.format),
        "parameters": old.parameters,
        "licence": old.licence,
        "notes": f"Made by `llmchat finetune` with the recipe {task.recipe.name}.",
        "stop_ids": list(old.stop_ids),
        "sampling_source": "greedy, as its samples were made",
        "base": msgspec.to_builtins(old.base),
        "adapters": [
            *map(msgspec.to_builtins, old.adapters),
            {"kind": "path", "repo": str(task.output.resolve() / "adapter")},
        ],
        "context": {"tokens": old.context.tokens} if old.context.tokens else {},
        "sampling": {"temperature": 0.0, "max_tokens": 1024},
    }
    return msgspec.toml.encode(
        {key: value for key, value in table.items() if value not in ("", [], {}, 0)}
    )


def _shipped_formats() -> tuple[str, ...]:
    from llmchat.presets import formats

    return formats()


def _install(preset: Path, name: str, world: World) -> str:
    """Add the preset to the user's own; returns "" if another preset already has the name."""
    target = world.own_presets / f"{name}.toml"
    adapter = f'"{preset.parent.resolve() / "adapter"}"'
    if target.exists() and adapter not in target.read_text("utf-8"):
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(preset, target)
    return str(target)
