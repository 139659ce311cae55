"""The command for the form of the answers: schema."""

import json
from collections.abc import Iterable

import msgspec

from llmchat.models.structures import check_for
from llmchat.structure import Structure, in_words
from llmchat.structure.arguments import parse
from llmchat.ui.json_output import pretty_json
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState, paths_starting_with

_FIRST_WORDS = {
    "off": "free text",
    "json": "any JSON object",
    "regex": "a text that a regular expression matches",
    "choice": "one of some words",
    "grammar": "a text of a Lark grammar in a file",
}


def _complete(state: ReplState, line: str) -> Iterable[str | tuple[str, str]]:
    word, space, rest = line.partition(" ")
    if not space:
        return [*_FIRST_WORDS.items(), *paths_starting_with(word)]
    return [f"{word} {path}" for path in paths_starting_with(rest)] if word == "grammar" else []


@command(
    "schema",
    "[FILE|JSON|fields|off]",
    "Show or set the form of the answers: JSON of a schema or of fields such as `name, age int`;"
    " also `regex RE`, `choice A B`, `grammar FILE` and `json`.",
    complete=_complete,
)
def schema(state: ReplState, rest: str) -> Answer:
    if rest:
        set_structure(state, rest)
        state.print(words_of(state.chat.sampling.structure))
    else:
        _show(state, state.chat.sampling.structure)
    return None


def set_structure(state: ReplState, text: str) -> None:
    """Give the following answers a structure, written as after `/schema`."""
    chat, structure = state.chat, parse(text)
    check_for(structure, chat.preset.engine, chat.engine)
    chat.set({"schema": msgspec.to_builtins(structure)})


def words_of(structure: Structure | None) -> str:
    return in_words(structure) if structure else "free text"


def _show(state: ReplState, structure: Structure | None) -> None:
    """Print a structure whole."""
    state.print(words_of(structure))
    if structure and structure.kind == "schema":
        state.print(pretty_json(json.loads(structure.source)))
    elif structure and structure.kind == "grammar":
        state.print(structure.source.rstrip())
