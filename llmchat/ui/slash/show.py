"""Commands that only options: help, show, stats."""

import textwrap

from llmchat.errors import UsageError, did_you_mean
from llmchat.models import doctor
from llmchat.models.facts import model_facts
from llmchat.ui import status, tables
from llmchat.ui.json_output import pretty_json
from llmchat.ui.slash.registry import Answer, Command, command, registry
from llmchat.ui.state import ReplState

_KEYS = (
    'Enter sends; Alt+Enter or Ctrl-J makes a new line; """ opens a block; Ctrl-G opens the editor.',
    "Ctrl-C stops an answer, Ctrl-D leaves; ← and → on an empty line show other answers.",
)
# From this width on names and meanings stand in two columns.
_WIDE, _COLUMN = 60, 24
_PARTS = ("info", "license", "template", "prompt")


@command(
    "help",
    "[command]",
    "List the commands, or explain one.",
    aliases=("?",),
    complete=lambda state, word: registry.names(),
)
def show_help(state: ReplState, rest: str) -> Answer:
    if rest:
        found = registry.get(rest.lstrip("/").lower())
        if found is None:
            raise UsageError(f"there is no command /{rest}", did_you_mean(rest, registry.names()))
        _explain(state, found)
        return None
    for title, commands in registry.groups().items():
        state.print(f"{title}:")
        for one in commands:
            _explain(state, one, indent="  ")
        state.print("")
    for line in _KEYS:
        _wrapped(state, line, "", "")
    return None


def _explain(state: ReplState, one: Command, indent: str = "") -> None:
    also = f" (also {', '.join('/' + alias for alias in one.aliases)})" if one.aliases else ""
    name = f"{indent}/{one.name} {one.arguments}".rstrip()
    if state.width() >= _WIDE and len(name) < _COLUMN:
        return _wrapped(state, one.help + also, f"{name:{_COLUMN}}", " " * _COLUMN)
    state.print(name)
    return _wrapped(state, one.help + also, f"{indent}  ", f"{indent}  ")


def _wrapped(state: ReplState, text: str, first: str, rest: str) -> None:
    """Lines that break between words; a column stays one."""
    width = max(state.width() - 1, len(rest) + 20)
    state.print(
        textwrap.fill(
            text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
    )


@command(
    "show",
    "{info|license|template|prompt}",
    "Show the model's facts, its licence, its prompt format as `llmchat doctor` checks it, or the exact prompt.",
    complete=lambda t, w: _PARTS,
)
def show(state: ReplState, rest: str) -> Answer:
    chat = state.chat
    if rest == "info":
        tables.model_facts(state.world, model_facts(chat.preset, state.world), chat.session or "")
    elif rest in ("license", "licence"):
        state.print(chat.preset.licence)
    elif rest == "template":
        form = chat.preset.format
        for line in doctor.lines(doctor.examine(chat.preset, state.world)):
            state.print(line)
        state.print("\nThe format itself:\n")
        state.print(form.template if form.template is not None else pretty_json(form.parts))
    elif rest == "prompt":
        state.print(chat.preset.format.render(chat.look().messages).text)
    else:
        raise UsageError(
            f"/show takes {', '.join(_PARTS)}", did_you_mean(rest, _PARTS) if rest else ""
        )
    return None


@command("stats", "", "Show tokens and times of the last answer.")
def stats(state: ReplState, rest: str) -> Answer:
    for line in status.statistics(state.chat):
        state.print(line)
    return None
