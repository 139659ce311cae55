"""`llmchat convert`: a copy of a model for other programs."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmchat.engines.checkpoint_files import chat_template
from llmchat.errors import OutOfResources, UsageError, any_of
from llmchat.hub import Checkpoint, licence_of
from llmchat.models.locate import find_checkpoint, sources, title
from llmchat.models.weight_names import stored_kind
from llmchat.output.formatting import byte_count
from llmchat.output.progress import Progress
from llmchat.presets import Preset
from llmchat.settings import World

GGUF_KINDS = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
_PREFIX = "gguf:"
FORMS = tuple(f"{_PREFIX}{kind}" for kind in GGUF_KINDS)
# Kinds that hold every number of a quantised file.
_WIDE = ("F32", "F16", "BF16")


def kind_named(form: str) -> str:
    """`Q8_0` of `gguf:q8_0`. Raises UsageError for any other form."""
    found = next((known for known in FORMS if known.lower() == form.lower()), None)
    if found is None:
        raise UsageError(f"cannot convert to `{form}`", f"--to takes {any_of(FORMS)}")
    return found.removeprefix(_PREFIX)


def default_target(preset: Preset, kind: str) -> Path:
    """A file in the current folder, named after the model."""
    name = Path(title(preset)).name.removesuffix(".gguf")
    return Path(f"{name}-{kind}.gguf")


def convert(preset: Preset, kind: str, target: Path, world: World, progress: Progress) -> int:
    """Write a model with its adapters merged as a GGUF file, which appears when it is complete;
    returns its bytes.

    Raises Mismatch for a model that GGUF cannot express, OutOfResources for a full disk.
    """
    from llmchat.engines.transformers.gguf_export import Export

    parts = [find_checkpoint(source, preset, world) for source in sources(preset)]
    if not parts:
        raise UsageError(f"{preset.name} runs on a server: its weights are not on this machine")
    base, *adapters = parts
    folders = [adapter.path for adapter in adapters]
    export = Export(base.path, folders, preset.adapter_scale, kind, _general(preset, parts, world))
    for note in (*_rounding(base, kind), *export.notes):
        progress.note(note)
    _need_room(target, export.size)
    progress.start(f"writing {target.name}", export.size)
    unfinished = target.with_name(f"{target.name}.part")
    try:
        export.write(unfinished, progress.advance)
        unfinished.replace(target)
    finally:
        progress.done()
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def _general(preset: Preset, parts: Sequence[Checkpoint], world: World) -> dict[str, str]:
    """Name, licence and chat template, where they are known."""
    licence = preset.licence
    if licence == "unknown":
        licence = licence_of(parts[0], world) or ""
    template = preset.format.template
    template = chat_template(parts[0].path) if template is None else template
    facts = {
        "general.name": preset.title or title(preset),
        "general.license": licence,
        "tokenizer.chat_template": template or "",
    }
    return {name: value for name, value in facts.items() if value}


def _rounding(base: Checkpoint, kind: str) -> list[str]:
    stored = stored_kind(base)
    if not stored or kind in _WIDE:
        return []
    return [
        f"note: the weights are {stored}; in the file they are rounded a second time, to {kind}"
    ]


def _need_room(target: Path, count: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if count > free:
        raise OutOfResources(
            f"{byte_count(count)} are needed, {byte_count(free)} are free in"
            f" {target.parent.resolve()}",
            "free some space, or name a file on a larger disk with -o",
        )
