"""Read what a deployment needs to know of a preset's base and adapters.

Reads small files only, never weights.
"""

import fnmatch
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat import hub
from llmchat.engines.checkpoint_files import chat_template, special_names, special_tokens
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import Mismatch, ModelNotFound, UsageError
from llmchat.hub.remote import read_small
from llmchat.hub.repo import list_repo
from llmchat.memory_estimate import own_context, parameters
from llmchat.models.locate import sources
from llmchat.presets import Preset, Source
from llmchat.prompt import Prompt, PromptFormat
from llmchat.settings import World

_SMALL = ("*.json", "*.jinja", "tokenizer.model", "spiece.model", "vocab.txt", "merges.txt")


class DeployedCheckpoint(Struct, frozen=True):
    """A base or an adapter.

    place: a Hub repo, or a folder on this machine; here: whether `folder` holds all files, or only
    the small ones.
    """

    name: str
    place: str
    revision: str
    local: bool
    here: bool
    folder: Path
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """The name a server uses for it."""
        return self.name if self.local else self.place


class ServedModel(Struct, frozen=True):
    """A model as a server needs to know it.

    format: complete, with the checkpoint's chat template if that is the format; end_ids: the tokens
    that end an answer; bos: the tokenizer's opening token; context: tokens of the window;
    parameters: 0 if unknown.
    """

    preset: Preset
    base: DeployedCheckpoint
    adapters: tuple[DeployedCheckpoint, ...]
    format: PromptFormat
    end_ids: tuple[int, ...]
    bos: str
    special: frozenset[str]
    context: int
    parameters: float

    @property
    def architecture(self) -> str:
        named = self.base.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else self.preset.architecture


def read_served_model(
    preset: Preset, world: World, scratch: Path, code: bool = False
) -> ServedModel:
    """Read the facts of a preset; small files that are not pulled are fetched into `scratch`.

    code: whether the checkpoint may run Python code of its own. Raises what a pull would raise, and
    Mismatch if the model has no prompt format.
    """
    if preset.unsupported:
        raise Mismatch(preset.unsupported)
    if not sources(preset):
        raise UsageError(
            f"the engine `{preset.engine}` has no files that another server could load"
        )
    base, *adapters = (
        _part(source, world, scratch / str(index)) for index, source in enumerate(sources(preset))
    )
    form = _complete(preset, base.folder)
    tokens = Tokenizer(base.folder)
    named = {
        number
        for stop in form.stops
        if stop in tokens.special and (number := tokens.id_of(stop)) is not None
    }
    own = own_context(base.config)
    return ServedModel(
        preset=preset,
        base=base,
        adapters=tuple(adapters),
        format=form,
        end_ids=tuple(sorted({*tokens.end_ids, *form.stop_ids, *preset.stop_ids, *named})),
        bos="".join(tokens.name_of(number) or "" for number in tokens.encode(Prompt("", ()))),
        special=tokens.special,
        context=min(filter(None, (preset.context.tokens, own)), default=0),
        parameters=preset.parameters or _count(preset.base, world, code),
    )


def _complete(preset: Preset, folder: Path) -> PromptFormat:
    form = preset.format
    if form.parts:
        return form
    template = chat_template(folder) if form.template is None else form.template
    if template is None:
        raise Mismatch(
            f"{preset.name} brings no chat template, and no preset names its prompt format",
            "name one with --format",
        )
    return form.with_template(template, special_names(folder), special_tokens(folder))


def _part(source: Source, world: World, scratch: Path) -> DeployedCheckpoint:
    name = Path(source.repo).name
    local = source.kind != "hub"
    try:
        found = hub.find(source, world)
        folder, revision, here = found.path, found.revision, True
    except ModelNotFound:
        if local:
            raise
        folder, revision, here = scratch, _fetch_small(source, world, scratch), False
    inspection = hub.inspect_folder(hub.Checkpoint(folder, source, revision, 0))
    place = str(folder) if local else source.repo
    return DeployedCheckpoint(
        name,
        place,
        "" if local else revision,
        local,
        here,
        folder,
        inspection.config or inspection.adapter,
    )


def _fetch_small(source: Source, world: World, folder: Path) -> str:
    """The small files of a repo into `folder`; returns its commit."""
    listing = list_repo(source, world)
    folder.mkdir(parents=True)
    for file in listing.files:
        if "/" not in file.name and any(
            fnmatch.fnmatchcase(file.name, pattern) for pattern in _SMALL
        ):
            (folder / file.name).write_bytes(read_small(source, world, listing.commit, file))
    return listing.commit


def _count(source: Source, world: World, code: bool) -> float:
    """Parameters by the headers of the weights; 0 where only a download would tell."""
    try:
        return parameters(hub.inspect_folder(hub.find(source, world)).shapes)
    except ModelNotFound:
        return parameters(hub.inspect(source, world, code).shapes)
