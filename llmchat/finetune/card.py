"""The folder to upload to the Hub: a run's adapter with a model card, or a merged checkpoint."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmchat.errors import Mismatch
from llmchat.output.formatting import counted


@contextmanager
def folder_to_push(folder: Path, repo: str) -> Iterator[Path]:
    """A folder with the files of the repo. Raises Mismatch without a run or a checkpoint."""
    if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
        yield folder
        return
    if not (folder / "adapter" / "adapter_config.json").exists():
        raise Mismatch(
            f"{folder} holds no finished run and no checkpoint",
            "`llmchat finetune` and `llmchat merge` write such folders",
        )
    with tempfile.TemporaryDirectory() as temporary:
        ready = Path(temporary)
        for path in (folder / "adapter").iterdir():
            shutil.copyfile(path, ready / path.name)
        for name in ("loss.png", "loss.svg", "run.json"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, ready / name)
        (ready / "README.md").write_text(
            card(msgspec.json.decode((folder / "run.json").read_bytes()), repo), "utf-8"
        )
        yield ready


def card(run: dict[str, Any], repo: str) -> str:
    """A model card that describes how the adapter was made; the Hub reads its header."""
    recipe, counts = run["recipe"], run["counts"]
    losses = [loss for _, _, loss in run["trained"]["curve"] if loss is not None]
    header = {"base_model": run["base"], "library_name": "peft", "tags": ["lora", "llmchat"]}
    lines = [
        "---",
        *(f"{name}: {msgspec.json.encode(value).decode()}" for name, value in header.items()),
        "---",
        "",
        f"# {repo.split('/')[-1]}",
        "",
    ]
    lines += [
        f"A LoRA adapter for `{run['base']}`, trained with llmchat on "
        f"{counts['trained_on']:,} records ({counts['held_out']:,} held out).",
        "",
        f"- prompt format: `{run['format']}`",
        f"- rank {recipe['rank']}, alpha {recipe['alpha']:g}, targets {recipe['targets']}, "
        f"learning rate {recipe['learning_rate']:g}, recipe {recipe['name']}",
        f"- {counted(run['trained']['steps'], 'step')}",
        *(
            [f"- loss held out: {losses[0]:.3f} at first, {min(losses):.3f} at best"]
            if losses
            else []
        ),
        "",
        "```",
        f"llmchat chat -m {run['base']} --adapter {repo} --format {run['format']}",
        "```",
    ]
    return "\n".join(lines) + "\n"
