"""`llmchat convert`: writes a model as a GGUF file, or as a folder of int4 weights."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmchat.engines.checkpoint_files import (
    GGUF_POINTER,
    PACKED_KEY,
    PACKED_TABLE,
    PACKED_VERSION,
    chat_template,
    read_json,
)
from llmchat.errors import Mismatch, OutOfResources, UsageError, any_of
from llmchat.gguf_file.mixes import MIXES
from llmchat.gguf_file.types import type_named
from llmchat.hub import Checkpoint, files_beside_weights, licence_of, size_of, unfinished
from llmchat.hub.local_store import fresh_folder, need_room
from llmchat.hub.safe_copy import copy_beside
from llmchat.models.locate import find_checkpoint, sources, title
from llmchat.models.weight_names import stored_kind
from llmchat.output.progress import Progress
from llmchat.presets import Preset, Source
from llmchat.settings import World

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SMALLER = "free some space, or name a place on a larger disk with -o"
INT4, _PREFIX = "int4", "gguf:"
FORMS = (INT4, *(f"{_PREFIX}{kind}" for kind in MIXES))
# What files of the mix are called on the Hub, too.
_SHORT = {"gguf:mxfp4": "gguf:mxfp4_moe"}
# A kind of so many bits holds every number of a quantised file.
_WIDE = 16


def kind_named(form: str) -> str:
    """`Q8_0` of `gguf:q8_0`, or `int4`. Raises UsageError for any other form."""
    wanted = _SHORT.get(form.lower(), form.lower())
    found = next((known for known in FORMS if known.lower() == wanted), None)
    if found is None:
        raise UsageError(f"cannot convert to `{form}`", f"--to takes {any_of(FORMS)}")
    return found.removeprefix(_PREFIX)


def default_target(preset: Preset, kind: str) -> Path:
    """A file or a folder in the current folder, named after the model."""
    name = Path(title(preset)).name.removesuffix(".gguf")
    return Path(f"{name}-{kind}" if kind == INT4 else f"{name}-{kind}.gguf")


def check_free(target: Path, kind: str, *, force: bool) -> None:
    """Raise UsageError if the target cannot be written, or exists and must not be replaced."""
    if kind != INT4 and target.is_dir():
        raise UsageError(f"{target} is a folder", "-o names the file")
    if kind != INT4 and not target.is_file() and os.path.lexists(target):
        # A rename replaces even a device.
        raise UsageError(f"{target} is not a regular file", "choose another name with -o")
    if kind == INT4 and target.exists() and not _is_replaceable(target):
        raise UsageError(
            f"{target} exists and is not a converted folder", "choose another name with -o"
        )
    if target.exists() and not force:
        raise UsageError(f"{target} exists", "--force replaces it")


def _check_apart(target: Path, models: Sequence[Source]) -> None:
    """Raise UsageError for a target that is the model, or that is within its folder."""
    inner = target.resolve()
    for folder in (Path(model.repo).resolve() for model in models if model.kind == "path"):
        if inner.is_relative_to(folder):
            raise UsageError(
                f"{target} is part of the model to convert", "choose another name with -o"
            )


def _is_replaceable(target: Path) -> bool:
    """Whether nothing but an earlier copy would be lost."""
    return target.is_dir() and ((target / PACKED_TABLE).exists() or not any(target.iterdir()))


def convert(preset: Preset, kind: str, target: Path, world: World, progress: Progress) -> int:
    """Write a model with its adapters merged: a GGUF file of the kind, or a folder of int4 weights.
    It appears when it is complete. Returns its bytes.

    Raises Mismatch for a model that the form cannot express, OutOfResources for a full disk.
    """
    parts = [find_checkpoint(source, preset, world) for source in sources(preset)]
    if not parts:
        raise UsageError(f"{preset.name} runs on a server: its weights are not on this machine")
    _check_apart(target, sources(preset))
    if kind == INT4:
        return _write_int4(preset, parts, target, progress)
    general = _general(preset, parts, world)
    return _write_gguf(preset, parts, kind, target, general, progress)


def _write_gguf(
    preset: Preset,
    parts: Sequence[Checkpoint],
    kind: str,
    target: Path,
    general: Mapping[str, str],
    progress: Progress,
) -> int:
    from llmchat.engines.transformers.gguf_export import Export

    base, *adapters = parts
    folders = [adapter.path for adapter in adapters]
    export = Export(base.path, folders, preset.adapter_scale, kind, general)
    for note in (*_rounding(base, kind), *export.notes):
        progress.note(note)
    need_room(target.parent.resolve(), export.size, _SMALLER)
    progress.start(f"writing {target.name}", export.size)
    try:
        with _in_words(target), unfinished.file(target) as file:
            export.write(file, progress)
    finally:
        progress.done()
    return target.stat().st_size


def _write_int4(
    preset: Preset, parts: Sequence[Checkpoint], target: Path, progress: Progress
) -> int:
    from llmchat.engines.transformers.prepared_checkpoint import Preparation

    base, *adapters = parts
    if stored := stored_kind(base):
        raise Mismatch(
            f"the weights of {preset.name} are {stored} already: int4 would round them twice",
            "name the 16-bit model; llmchat runs this one with its own numbers",
        )
    folders = [adapter.path for adapter in adapters]
    preparation = Preparation(base.path, folders, preset.adapter_scale, weights="int4")
    need_room(target.parent.resolve(), preparation.size, _SMALLER)
    progress.start(f"writing {target.name}", preparation.size)
    try:
        with _in_words(target), fresh_folder(target) as folder:
            _copy_beside(base.path, preset, folder)
            preparation.write(folder, progress.advance)
            _mark(folder / "config.json")
    finally:
        progress.done()
    return size_of([target])


@contextmanager
def _in_words(target: Path) -> Iterator[None]:
    """Report a disk, a quota or a limit on the size of files that is too small in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OutOfResources(
            f"{target} could not be written: {error.strerror}", _SMALLER
        ) from error


def _copy_beside(base: Path, preset: Preset, folder: Path) -> None:
    """Tokenizer, licence and template."""
    for path in files_beside_weights(base):
        if path.name != GGUF_POINTER:
            copy_beside(path, folder)
    template = preset.format.template
    if template is not None and not (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").write_text(template, "utf-8")


def _mark(config: Path) -> None:
    """Record the version of the layout."""
    marked = read_json(config) | {PACKED_KEY: PACKED_VERSION}
    config.write_text(json.dumps(marked, indent=2) + "\n", "utf-8")


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
    if not stored or type_named(MIXES[kind].kind).bits >= _WIDE:
        return []
    return [
        f"note: the weights are {stored} already; those whose type stays the same in {kind} are"
        " copied, all others are rounded a second time"
    ]
