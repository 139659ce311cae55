"""Read presets and prompt formats. Only the files that are needed are read."""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llmchat import actions
from llmchat.errors import LlmchatError, ModelNotFound, UsageError, did_you_mean
from llmchat.parse_guard import read_toml, reason, shown
from llmchat.presets import plugin_files
from llmchat.presets.model_names import names_elsewhere, source_of
from llmchat.presets.types import Preset, Source
from llmchat.prompt import PromptFormat
from llmchat.structure import Structure, checked
from llmchat.structure.arguments import parse

SHIPPED = Path(str(files("llmchat.presets")))
# The most bytes of a file name on Linux.
_LONGEST_NAME = 255

Kind = TypeVar("Kind", Preset, PromptFormat)


def find(model: str, own: Path | None = None) -> Preset:
    """The preset for a MODEL argument.

    own: the folder of the user's presets, which take precedence over the shipped ones.
    """
    if max(map(len, os.fsencode(model).split(b"/"))) > _LONGEST_NAME:
        raise ModelNotFound(f"no model is called `{model}`", "`llmchat presets` lists the names")
    path = _preset_file(model, own)
    if path:
        return read_preset(path)
    if _is_path(model):
        return _bare(Source("path", _resolved(model)), Path(model).name)
    if source := source_of(model):
        return _bare(source, source.name)
    raise ModelNotFound(
        f"no model is called `{model}`",
        did_you_mean(model, list(_all_files(own)))
        or next((fault.message for fault in plugin_files.faults()), "")
        or "`llmchat presets` lists the names; a Hub repo is written org/name, a folder ./name",
    )


def is_preset(model: str, own: Path | None = None) -> bool:
    """Whether a MODEL argument is the name of a preset."""
    return _preset_file(model, own) is not None


def absolute(model: str, own: Path | None = None) -> str:
    """A MODEL argument that is valid in every folder: paths are made absolute."""
    is_path = _is_path(model) and not _preset_file(model, own)
    return _resolved(model) if is_path else model


def _preset_file(model: str, own: Path | None) -> Path | None:
    known = _file_of(model, own) or _catalogue(own).get(model.lower())
    # Only now are plugins imported: neither the user's presets nor ours have the name.
    return known or _named_in(_dated(plugin_files.folders())).get(model.lower())


def _is_path(model: str) -> bool:
    if model.startswith(("/", "./", "../", "~")):
        return True
    if model.endswith(".gguf"):
        return Path(model).exists() or not names_elsewhere(model)
    return bool(model) and Path(model).is_dir()


def _resolved(model: str) -> str:
    """The absolute path of a folder or a file.

    A link with the ending of a model stays: the Hub's cache links to files without one.
    """
    path = Path(model).expanduser()
    linked = path.suffix == ".gguf"
    return str(path.parent.resolve() / path.name if linked else path.resolve())


def served(model: str, own: Path | None = None) -> Preset:
    """The preset for a model of a server, by its name there; "" for the server's only model.

    Without a preset of that name, the server applies its own chat template.
    """
    try:
        return find(model, own) if model else _bare(Source("served", ""), "")
    except ModelNotFound:
        return _bare(Source("served", model), model)


def names(own: Path | None = None, kind: str = "") -> dict[str, Preset]:
    """Every preset by its name, sorted, without the user's invalid files (see `broken`).

    kind: those of this kind only.
    """
    presets = [
        preset
        for _, preset in _all(own)
        if isinstance(preset, Preset) and kind in ("", preset.kind)
    ]
    return {preset.name: preset for preset in sorted(presets, key=lambda preset: preset.name)}


def broken(own: Path | None = None) -> list[str]:
    """The error of each preset file of the user or a plugin that cannot be used."""
    errors = [error for _, error in _all(own) if isinstance(error, LlmchatError)]
    return [error.message for error in (*errors, *plugin_files.faults())]


def _all(own: Path | None) -> Iterator[tuple[Path, Preset | LlmchatError]]:
    for path in dict.fromkeys(_all_files(own).values()):
        try:
            yield path, read_preset(path)
        except LlmchatError as error:
            if path.parent == SHIPPED / "models":
                raise
            yield path, error


def get_format(name: str) -> PromptFormat:
    """A prompt format by its name; `template` is the checkpoint's own chat template."""
    return _convert(_format_table(name), PromptFormat, Path(name))


def formats() -> tuple[str, ...]:
    """The names of all prompt formats, those of plugins too."""
    return tuple(sorted(_formats_in((SHIPPED, *plugin_files.folders()))))


def _formats_in(folders: Iterable[Path]) -> dict[str, Path]:
    """Name → file. Earlier folders take precedence."""
    files = [path for folder in folders for path in (folder / "formats").glob("*.toml")]
    return {path.stem: path for path in reversed(files)}


def _bare(base: Source, name: str) -> Preset:
    """A model without a preset: its own chat template and limits apply."""
    return Preset(name, base, get_format("template"))


def _file_of(model: str, own: Path | None) -> Path | None:
    """The file of a shipped preset, found without reading all others.

    None if the user has presets, whose aliases take precedence over shipped names.
    """
    if (own is not None and own.is_dir()) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", model):
        return None
    path = SHIPPED / "models" / f"{model}.toml"
    return path if path.is_file() else None


def _all_files(own: Path | None) -> dict[str, Path]:
    """Name or alias → file: the user's, ours, and those of plugins, which replace none of them."""
    return _named_in(_dated(plugin_files.folders())) | _catalogue(own)


def _catalogue(own: Path | None) -> dict[str, Path]:
    """Name or alias → file: the user's, then ours."""
    folders = (own, SHIPPED / "models")
    return _named_in(_dated(folder for folder in folders if folder and folder.is_dir()))


def _dated(folders: Iterable[Path]) -> tuple[tuple[Path, int], ...]:
    """Folders with the time of their last change: a program that runs for long sees a preset that
    was added.
    """
    return tuple((folder, folder.stat().st_mtime_ns) for folder in folders)


@functools.lru_cache(maxsize=8)
def _named_in(folders: tuple[tuple[Path, int], ...]) -> dict[str, Path]:
    """Name or alias → file, of folders with the time of their last change.

    Aliases are matched by a pattern, which is faster than parsing TOML.
    """
    known: dict[str, Path] = {}
    for path in (path for folder, _ in folders for path in sorted(folder.glob("*.toml"))):
        aliases = re.search(r"^aliases\s*=\s*\[(.*?)\]", _text(path), re.M | re.S)
        for name in (path.stem, *re.findall(r'"([^"]+)"', aliases[1] if aliases else "")):
            known.setdefault(name.lower(), path)
    return known


def _text(path: Path) -> str:
    """The text of a file; "" if it cannot be read, which is an error once the file is used."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def read_preset(path: Path) -> Preset:
    """The preset in a file. Raises UsageError for a mistake in it."""
    table = read_toml(path)
    table.setdefault("name", path.stem)
    form = table.get("format", "template")
    if isinstance(form, dict):
        # A format that is written in the preset has the preset's name.
        table["format"] = {"name": table["name"], **form}
    else:
        table["format"] = _format_of(form, path)
    sampling = table.get("sampling")
    if isinstance(sampling, dict) and "structure" in sampling:
        sampling["structure"] = _structure_of(sampling["structure"], path)
    preset = _convert(table, Preset, path)
    try:
        actions.check(preset.actions)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
    return preset


def _structure_of(written: Any, path: Path) -> Any:
    """The structure in a preset, a text as in `/schema` or a table, as a table."""
    try:
        return msgspec.to_builtins(read_structure(written, path.parent))
    except UsageError as error:
        raise UsageError(f"{path}: {shown(error.message)}", error.hint) from error
    except msgspec.ValidationError:
        # Reported with its place in the preset.
        return written


def read_structure(written: Any, folder: Path) -> Structure | None:
    """The structure that a preset in `folder` has under `sampling.structure`."""
    if isinstance(written, str):
        return parse(written, folder)
    return checked(msgspec.convert(written, Structure))


def _format_of(name: Any, path: Path) -> dict[str, Any]:
    try:
        return _format_table(str(name))
    except UsageError as error:
        raise UsageError(f"{path}: {shown(error.message)}", error.hint) from error


def _format_table(name: str) -> dict[str, Any]:
    path = _formats_in([SHIPPED]).get(name) or _formats_in(plugin_files.folders()).get(name)
    if path is None:
        raise UsageError(
            f"no prompt format is called `{name}`",
            did_you_mean(name, formats()) or "`llmchat presets --formats` lists them",
        )
    return {"name": name, **read_toml(path)}


def _convert(table: dict[str, Any], kind: type[Kind], path: Path) -> Kind:
    try:
        return msgspec.convert(table, kind)
    except (msgspec.ValidationError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: {reason(error)}") from error
