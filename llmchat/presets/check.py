"""Check a preset file and report each mistake with its line: `llmchat presets check FILE`."""

import functools
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from llmchat.engines import Sampling
from llmchat.errors import UsageError, did_you_mean
from llmchat.parse_guard import reading, reason
from llmchat.presets.load import formats, names, read_structure
from llmchat.presets.model_names import REPO_ID
from llmchat.presets.types import Preset
from llmchat.prompt import PromptFormat

KeyPath = tuple[str | int, ...]


class Mistake(Struct, frozen=True):
    """A mistake in a preset file."""

    line: int
    """Line in the file, from 1; 0 for something missing."""
    text: str
    """What is wrong."""
    fatal: bool = True
    """Whether the preset cannot be used."""


def check(file: Path, own: Path | None = None) -> list[Mistake]:
    """Every mistake in a preset file, by line. own: the folder of the user's presets."""
    with reading(file, UsageError, ""):
        text = file.read_text("utf-8")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        number = int(line[1]) if line else len(text.splitlines())
        return [Mistake(number, f"invalid TOML: {reason(error)}")]
    lines = _lines(text)
    found = [*_shape(table, Preset, ()), *_sense(table, file, own)]
    return sorted(
        (Mistake(_line_of(path, lines), text, fatal) for path, text, fatal in found),
        key=lambda mistake: mistake.line,
    )


_Found = tuple[KeyPath, str, bool]


def _may_be_missing(name: str, table: dict[str, Any]) -> bool:
    """The name of a preset is that of its file, and an embedder has no prompt format."""
    return name == "name" or (name == "format" and table.get("kind", "chat") != "chat")


def _shape(table: dict[str, Any], kind: type[Struct], path: KeyPath) -> Iterator[_Found]:
    """Unknown and missing keys, and values of the wrong type, in a struct and those inside it."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        optional = kind is Preset and _may_be_missing(name, table)
        if field.required and name not in table and not optional:
            yield path, f"`{_dotted((*path, name))}` is missing", True
    for key, value in table.items():
        key_path = (*path, key)
        if key not in fields:
            hint = did_you_mean(key, tuple(fields)) or f"there are {', '.join(fields)}"
            yield key_path, f"there is no key `{_dotted(key_path)}`; {hint}", True
        elif kind is Preset and key == "format":
            # The name of a shipped format is checked by `_sense`.
            if not isinstance(value, str):
                yield from _value(value, PromptFormat, key_path)
        elif kind is Sampling and key == "structure" and isinstance(value, str):
            # A text as in `/schema` is checked by `_sense`.
            pass
        else:
            yield from _value(value, fields[key].type, key_path)


def _value(value: Any, wanted: Any, path: KeyPath) -> Iterator[_Found]:
    struct = _struct(wanted)
    if struct and isinstance(value, dict):
        # The name of a format inside a preset is the preset's.
        yield from _shape({"name": "", **value} if struct is PromptFormat else value, struct, path)
    elif struct and isinstance(value, list) and get_origin(wanted) is tuple:
        for index, item in enumerate(value):
            yield from _value(item, struct, (*path, index))
    else:
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at ")[0]
            yield path, f"`{_dotted(path)}`: {reason[0].lower()}{reason[1:]}", True


def _struct(wanted: Any) -> type[Struct] | None:
    """The struct in a type: itself, the items of a tuple, or an alternative of a union."""
    if isinstance(wanted, type) and issubclass(wanted, Struct):
        return wanted
    if get_origin(wanted) in (tuple, types.UnionType, typing.Union):
        return next((inner for inner in map(_struct, get_args(wanted)) if inner), None)
    return None


def _sense(table: dict[str, Any], file: Path, own: Path | None) -> Iterator[_Found]:
    """What has the right type and still cannot work, or has a surprising effect."""
    form = table.get("format", "template")
    if isinstance(form, str) and form not in formats():
        hint = did_you_mean(form, formats()) or "`llmchat presets --formats` lists them"
        yield ("format",), f"no prompt format is called `{form}`; {hint}", True
    if isinstance(form, dict):
        yield from _format_sense(form)
    sources: list[tuple[KeyPath, Any]] = [(("base",), table.get("base"))]
    sources += [(("adapters", n), one) for n, one in enumerate(_list(table.get("adapters")))]
    for path, source in sources:
        if isinstance(source, dict):
            yield from _source_sense(source, path)
    context = table.get("context")
    if isinstance(context, dict) and "turns" in context and context.get("policy") != "last-n":
        effect = '`context.turns` has no effect: only policy = "last-n" counts turns'
        yield ("context", "turns"), effect, False
    yield from _window_sense(table.get("trained_context"), context)
    yield from _name_sense(table, file)
    yield from _kind_sense(table)
    sampling = table.get("sampling")
    if isinstance(sampling, dict) and "structure" in sampling:
        yield from _structure_sense(sampling["structure"], file)


def _kind_sense(table: dict[str, Any]) -> Iterator[_Found]:
    """A table about the use of an embedder or a reranker belongs to its kind."""
    for kind in ("embedder", "reranker"):
        if (table.get("kind") == kind) != (kind in table):
            text = f'the table `{kind}` and kind = "{kind}" require each other'
            yield (kind if kind in table else "kind",), text, True


def _window_sense(trained: Any, context: Any) -> Iterator[_Found]:
    """A window that is larger than what the model was made for."""
    tokens = context.get("tokens") if isinstance(context, dict) else None
    if isinstance(trained, int) and isinstance(tokens, int) and 0 < trained < tokens:
        text = f"the window of {tokens:,} tokens exceeds the {trained:,} the model was made for"
        yield ("context", "tokens"), text, False


def _structure_sense(written: Any, file: Path) -> Iterator[_Found]:
    try:
        read_structure(written, file.parent)
    except UsageError as error:
        hint = f"; {error.hint}" if error.hint else ""
        yield ("sampling", "structure"), f"`sampling.structure`: {error.message}{hint}", True
    except msgspec.ValidationError:
        # Wrong types are reported by `_shape`.
        pass


def _name_sense(table: dict[str, Any], file: Path) -> Iterator[_Found]:
    """Names of shipped presets."""
    shipped = _shipped_names()
    given = {"name": [table.get("name", file.stem)], "aliases": _list(table.get("aliases"))}
    for key, names_ in given.items():
        for name in names_:
            if isinstance(name, str) and name in shipped:
                text = f"`{name}` replaces the preset `{shipped[name]}` that llmchat ships"
                yield (key,), text, False


def _list(value: Any) -> list[Any]:
    """The value if it is a list; [] for anything else, which `_shape` reports."""
    return value if isinstance(value, list) else []


@functools.lru_cache(maxsize=1)
def _shipped_names() -> dict[str, str]:
    """Name or alias → the shipped preset."""
    return {
        name: preset.name for preset in names().values() for name in (preset.name, *preset.aliases)
    }


def _source_sense(source: dict[str, Any], path: KeyPath) -> Iterator[_Found]:
    kind, repo = source.get("kind"), source.get("repo")
    if not isinstance(repo, str):
        return
    if kind == "hub" and not REPO_ID.fullmatch(repo):
        yield (*path, "repo"), f"invalid Hub repo `{repo}`: write org/name", True
    if kind == "path" and not Path(repo).expanduser().exists():
        yield (*path, "repo"), f"there is no folder or file {repo}", True
    if kind == "pypi" and not source.get("files"):
        yield (*path, "repo"), "a wheel requires `files`: which of its files is the model", True


def _format_sense(form: dict[str, Any]) -> Iterator[_Found]:
    parts = form.get("parts")
    if not isinstance(parts, dict):
        if not form.get("template"):
            yield ("format",), "a format requires `parts` or a `template`", True
        return
    for key, value in parts.items():
        allowed = {
            "user_with_input": {"text", "input"},
            "user_with_system": {"text", "system"},
        }.get(key, {"text"})
        for slot in re.findall(r"\{(\w+)\}", value) if isinstance(value, str) else ():
            if slot in ("text", "input", "system") and slot not in allowed:
                yield ("format", "parts", key), f"`{{{slot}}}` is not replaced in `{key}`", True
    for key in ("user", "assistant"):
        if isinstance(parts.get(key, "{text}"), str) and "{text}" not in parts.get(key, "{text}"):
            yield (
                ("format", "parts", key),
                f"`{key}` has no {{text}}: the message would not be sent",
                True,
            )
    if not form.get("stops") and not parts.get("end"):
        yield (
            ("format",),
            "neither `stops` nor `end`: only the checkpoint's own end token ends an answer",
            False,
        )
    if not parts.get("labels"):
        yield (
            ("format", "parts"),
            "no `labels`: a message that contains a speaker's label could pose as that speaker",
            False,
        )


def _lines(text: str) -> dict[KeyPath, int]:
    """The line of each key and table in a valid TOML text."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    quote, depth = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            quote = "" if quote in line else quote
            continue
        if depth == 0 and (header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)):
            table = _keys(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            found.setdefault(table, number)
        elif depth == 0 and (
            key := re.match(
                r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"))*)\s*=", line
            )
        ):
            path = (*table, *_keys(key[1]))
            found.setdefault(path, number)
            for inner in re.findall(r"[{,]\s*([\w-]+)\s*=", line[key.end() :]):
                found.setdefault((*path, inner), number)
        bare = re.sub(
            r"\"(?:[^\"\\]|\\.)*\"|'[^']*'", "", line.replace('"""', "\x00").replace("'''", "\x01")
        )
        if bare.count("\x00") % 2 or bare.count("\x01") % 2:
            quote = '"""' if bare.count("\x00") % 2 else "'''"
        elif not re.match(r"\s*\[", line) or depth:
            bare = bare.partition("#")[0]
            depth = max(0, depth + bare.count("[") - bare.count("]"))
    return found


def _keys(text: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(r"[\w-]+|\"[^\"]*\"|'[^']*'", text))


def _line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    """The line of a key, or of the nearest table around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
