#!/usr/bin/env python3
"""Train the default model on six families of tasks, score it, resume it after a kill, and time it.

usage: python benchmarks/finetune.py [--save]        (15 minutes on two cores)

The default model must be pulled. The peer is peft with the Trainer's defaults.
"""

import argparse
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basics import processor
from lessons import lessons, tasks, write

LLMCHAT = [sys.executable, "-m", "llmchat"]
TRAIN, HELD_OUT = 700, 120
TEXT = Path(__file__).parent / "data" / "moby_dick.txt"
RUN = [
    "finetune",
    "--base",
    "smollm2",
    "--format",
    "alpaca",
    "--evaluation",
    "60",
    "--samples",
    "0",
    "--overwrite",
]


def llmchat(*arguments: str) -> str:
    return subprocess.run(
        [*LLMCHAT, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def prepare(folder: Path) -> None:
    taught, kept = lessons(TRAIN, HELD_OUT)
    write(
        folder / "train.jsonl",
        [{key: row[key] for key in ("instruction", "input", "output")} for row in taught],
    )
    write(folder / "held_out.jsonl", tasks(kept))
    chapters = [part for part in TEXT.read_text("utf-8").split("\n\n") if len(part) > 400][:40]
    write(folder / "plain.jsonl", [{"kind": "perplexity", "text": part} for part in chapters])


def taught(folder: Path, name: str) -> dict[str, Any]:
    started = time.perf_counter()
    outcome = json.loads(
        llmchat(
            *RUN, "--data", str(folder / "train.jsonl"), "--output", str(folder / name), "--json"
        )
    )
    return {"seconds": round(time.perf_counter() - started), **outcome["trained"]}


def killed_and_resumed(folder: Path, name: str, steps: int) -> dict[str, Any]:
    """SIGKILL half-way, then the same command again."""
    child = subprocess.Popen(
        [
            *LLMCHAT,
            *RUN,
            "--data",
            str(folder / "train.jsonl"),
            "--output",
            str(folder / name),
            "--quiet",
        ]
    )
    while (
        not (
            folder / name / "checkpoints" / f"checkpoint-{steps // 2}" / "trainer_state.json"
        ).exists()
        and child.poll() is None
    ):
        time.sleep(0.2)
    time.sleep(3)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    return taught(folder, name)


def same_weights(one: Path, other: Path) -> float:
    """The largest difference between two adapters, in shares of the largest weight."""
    from safetensors.torch import load_file

    a, b = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    return max(
        float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp(min=1e-12)) for name in a
    )


def scores(folder: Path, *models: str, file: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    words = [word for model in models for word in ("-m", model)]
    return dict(
        json.loads(
            llmchat("evaluate", *words, "--tasks", str(folder / file), "--json", "-q", *options)
        )
    )


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table without the path of a folder that is gone."""
    return {name: row[name] for name in ("task", "kind", "n", "score", "interval")} | {
        "model": "tuned" if "pupil" in row["model"] else "base"
    }


def speeds(folder: Path) -> dict[str, Any]:
    """Training tokens a second, ours and peft + Trainer, by turns on the same 64 records."""
    result: dict[str, list[float]] = {"llmchat": [], "peft + Trainer, defaults": []}
    write(
        folder / "few.jsonl",
        [
            {key: row[key] for key in ("instruction", "input", "output")}
            for row in lessons(64, 0, seed=1)[0]
        ],
    )
    for number in range(3):
        out = folder / f"speed-{number}"
        arguments = [
            *RUN,
            "--data",
            str(folder / "few.jsonl"),
            "--output",
            str(out),
            "--max-steps",
            "8",
            "--batch",
            "8",
            "--json",
        ]
        outcome = json.loads(
            llmchat(
                *[word for word in arguments if word not in ("--evaluation", "60")],
                "--evaluation",
                "0",
            )
        )
        result["llmchat"].append(outcome["trained"]["tokens_per_second"])
        plain = subprocess.run(
            [sys.executable, __file__, "--defaults", str(folder / "few.jsonl")],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        result["peft + Trainer, defaults"].append(float(plain.stdout.split()[-1]))
    medians = {name: round(statistics.median(values)) for name, values in result.items()}
    return medians | {
        "ratio": round(medians["llmchat"] / medians["peft + Trainer, defaults"], 2),
        "runs": result,
    }


def defaults(file: Path) -> None:
    """The same records, rank and targets, trained as the libraries' guides do.

    Right padding, labels for the answers, and the Trainer's own loop.
    """
    import peft
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    from llmchat.engines.transformers.plain_checkpoint import plain_checkpoint
    from llmchat.finetune.data import read
    from llmchat.finetune.examples import write_examples
    from llmchat.finetune.recipes import get_recipe
    from llmchat.finetune.training.batches import rows_of
    from llmchat.models.loading import tokenizer
    from llmchat.models.locate import locate
    from llmchat.presets import preset_for
    from llmchat.settings import Options, World

    world = World.real()
    model = locate(preset_for(Options(model="smollm2", format="alpaca")), world)
    assert model.base
    examples = write_examples(
        read([str(file)], "auto", world),
        model.preset.format,
        tokenizer(model),
        get_recipe("default"),
    ).examples
    with plain_checkpoint(model.base.path) as folder:
        base = AutoModelForCausalLM.from_pretrained(folder)
    tuned = peft.get_peft_model(
        base,
        peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    pad = PreTrainedTokenizerFast.from_pretrained(model.base.path)
    pad.pad_token = pad.eos_token
    took: list[float] = []

    class Timed(Trainer):
        def training_step(self, *arguments: Any, **more: Any) -> Any:
            started = time.perf_counter()
            loss = super().training_step(*arguments, **more)
            took.append(time.perf_counter() - started)
            return loss

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out, max_steps=8, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
        )
        Timed(
            tuned,
            settings,
            train_dataset=rows_of(examples),
            data_collator=DataCollatorForSeq2Seq(pad),
        ).train()
    print(sum(len(example.ids) for example in examples) / sum(took))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--defaults", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if given.defaults:
        return defaults(given.defaults)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        show: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
        whole = taught(folder, "pupil")
        rate = f"{whole['tokens_per_second']:.0f} tokens/s"
        show(f"trained: {whole['steps']} steps in {whole['seconds']} s, {rate}")
        adapter = f"smollm2+{folder / 'pupil' / 'adapter'}"
        held_out = scores(
            folder,
            "smollm2:off",
            adapter,
            file="held_out.jsonl",
            options=("--format", "alpaca", "--max-tokens", "64"),
        )
        plain = scores(folder, "smollm2:off", adapter, file="plain.jsonl")
        again = killed_and_resumed(folder, "again", whole["steps"])
        result = {
            "machine": processor(),
            "date": datetime.date.today().isoformat(),
            "command": "python benchmarks/finetune.py --save",
            "records": {"train": TRAIN, "held out": HELD_OUT},
            "trained": whole,
            "held out": [brief(row) for row in held_out["rows"]],
            "plain text": [brief(row) for row in plain["rows"]],
            "killed and resumed": {
                "same loss curve": again["curve"] == whole["curve"],
                "largest difference of a weight": same_weights(folder / "pupil", folder / "again"),
            },
            "tokens a second": speeds(folder),
        }
    print(json.dumps(result, indent=1))
    if given.save:
        (Path(__file__).parent / "results" / "finetune.json").write_text(
            json.dumps(result, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
