"""Reads a structure as a user writes it: a flag, a variable, a config key or `/schema`.

The text is a file with a JSON Schema, the schema itself, or its short form; or begins with the
word for another kind: `regex RE`, `choice A B`, `grammar FILE`, `json`.
"""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from llmchat import structure
from llmchat.errors import UsageError
from llmchat.process.streams import MOST_ASKED, read_file
from llmchat.structure import Structure, parsed_json
from llmchat.structure.short_form import schema_of_short_form


def parse(text: str, folder: Path = Path()) -> Structure | None:
    """The structure of an argument; None for `off`. Raises UsageError.

    folder: where the names of files begin.
    """
    word, _, rest = text.strip().partition(" ")
    if word == "off" and not rest:
        return None
    if word in _KINDS:
        return _KINDS[word](rest.strip(), folder)
    return schema_of_argument(text, folder)


def of_flags(
    schema: str | None, regex: str | None, choices: Sequence[str], grammar: str | None
) -> str | None:
    """The argument for `parse` that says what the flags say; None where none was given.

    Raises UsageError for two of them.
    """
    written = {
        "--schema": _written(schema),
        "--regex": None if regex is None else f"regex {regex}",
        "--choice": f"choice {_as_json(choices)}" if choices else None,
        "--grammar": None if grammar is None else f"grammar {grammar}",
    }
    given = [flag for flag, text in written.items() if text is not None]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} exclude each other", "an answer has one structure; give one"
        )
    return written[given[0]] if given else None


def _written(schema: str | None) -> str | None:
    """The value of --schema, where no word names another kind, as an argument for `parse`."""
    if schema is None:
        return None
    return schema if schema.strip() == "off" else f"schema {schema}"


def schema_of_argument(text: str, folder: Path = Path()) -> Structure:
    """The structure of FILE, JSON or a short form."""
    text = text.strip()
    if not text:
        raise UsageError(
            "the schema is empty", "give a file, JSON, or a short form such as `name, age int`"
        )
    if text.startswith("{") or text in ("true", "false"):
        return structure.from_schema(text)
    if _is_file(text, folder):
        content = _read(text, folder)
        parsed_json(content, text)
        return structure.from_schema(content)
    return structure.from_schema(schema_of_short_form(text))


def _regex(text: str, folder: Path) -> Structure:
    return structure.from_regex(text)


def _choices(text: str, folder: Path) -> Structure:
    """Words, quoted as in a shell, or a JSON list."""
    if text.startswith("["):
        choices = parsed_json(text, "the list of choices")
        return structure.from_choices(choices if isinstance(choices, list) else [])
    try:
        return structure.from_choices(shlex.split(text))
    except ValueError as error:
        hint = 'quote a choice of several words: choice "not sure" yes no'
        raise UsageError(f"the choices cannot be read: {str(error).lower()}", hint) from error


def _grammar(name: str, folder: Path) -> Structure:
    if not name:
        raise UsageError("a grammar is the name of a file", "for example `grammar date.lark`")
    return structure.from_grammar(_read(name, folder))


def _any_json(rest: str, folder: Path) -> Structure:
    if rest:
        raise UsageError(f"`json` takes nothing, not `{rest}`", "`schema …` takes a schema")
    return structure.ANY_JSON


_KINDS: dict[str, Callable[[str, Path], Structure]] = {
    "json": _any_json,
    "schema": schema_of_argument,
    "regex": _regex,
    "choice": _choices,
    "grammar": _grammar,
}


def _as_json(choices: Sequence[str]) -> str:
    return json.dumps(list(choices), ensure_ascii=False)


def _is_file(text: str, folder: Path) -> bool:
    """Whether a text names a file: an existing one, or one that can be nothing else."""
    if text.endswith(".json") or text.startswith(("/", "./", "../", "~")):
        return True
    try:
        return (folder / text).is_file()
    except (OSError, ValueError):
        # Too long for a name.
        return False


def _read(name: str, folder: Path) -> str:
    try:
        return read_file(folder / Path(name).expanduser(), name, MOST_ASKED)
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{name} cannot be read: {why}") from error
