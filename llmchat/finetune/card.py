"""What goes to the Hub: the adapter of a run with a model card, or a merged checkpoint as it is."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmchat.errors import Mismatch
from llmchat.formatting import counted


@contextmanager
def folder_to_push(folder: Path, repo: str) -> Iterator[Path]:
    """A folder whose files are those of the repo. Raises Mismatch where there is neither a run nor a checkpoint."""
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
        for name in ("loss.png", "run.json"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, ready / name)
        (ready / "README.md").write_text(
            card(msgspec.json.decode((folder / "run.json").read_bytes()), repo), "utf-8"
        )
        yield ready


def card(run: dict[str, Any], repo: str) -> str:
    """A model card that says what the adapter was made of; its header is what the Hub reads."""
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
        f"A LoRA adapter for `{run['base']}`, trained with llmchat on {counts['trained_on']:,} records ({counts['held_out']:,} held out).",
        "",
        f"- prompt format: `{run['format']}`",
        f"- rank {recipe['rank']}, alpha {recipe['alpha']:g}, targets {recipe['targets']}, learning rate {recipe['learning_rate']:g}, recipe {recipe['name']}",
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
