"""Commands that only print: help, show, stats."""

import textwrap

from llmchat.errors import UsageError, did_you_mean
from llmchat.models import doctor
from llmchat.models.facts import model_facts
from llmchat.ui import status, tables
from llmchat.ui.json_output import pretty_json
from llmchat.ui.slash.registry import Answer, Command, command, number_of, registry
from llmchat.ui.state import ReplState

_KEYS = (
    'Enter sends; Alt+Enter or Ctrl-J starts a new line; """ opens a block;'
    " Ctrl-G opens the editor.",
    "Ctrl-C stops an answer, Ctrl-D leaves; ← and → on an empty line show other answers.",
    "Ctrl-P lists the saved chats to switch to; type to search them.",
)
# From this width on, /help has two columns.
_WIDE, _COLUMN = 60, 24
_PARTS = ("info", "license", "template", "prompt", "tool")


@command(
    "help",
    "[command]",
    "List the commands, or explain one.",
    aliases=("?",),
    complete=lambda state, word: registry.names(),
)
def show_help(state: ReplState, rest: str) -> Answer:
    if rest:
        _explain_command(state, rest)
        return None
    for heading, commands in registry.groups().items():
        state.print(f"{heading}:")
        for each in commands:
            _explain(state, each, indent="  ")
        state.print("")
    for line in _KEYS:
        _print_wrapped(state, line, "", "")
    return None


def _explain_command(state: ReplState, name: str) -> None:
    found = registry.get(name.lstrip("/").lower())
    if found is None:
        hint = did_you_mean(name.lstrip("/"), registry.names(), "/")
        raise UsageError(f"there is no command /{name.lstrip('/')}", hint)
    _explain(state, found)


def _explain(state: ReplState, one: Command, indent: str = "") -> None:
    aliases = ", ".join(f"/{alias}" for alias in one.aliases)
    text = one.help + (f" (also {aliases})" if aliases else "")
    name = f"{indent}/{one.name} {one.arguments}".rstrip()
    if state.width() >= _WIDE and len(name) < _COLUMN:
        _print_wrapped(state, text, f"{name:{_COLUMN}}", " " * _COLUMN)
    else:
        state.print(name)
        _print_wrapped(state, text, f"{indent}  ", f"{indent}  ")


def _print_wrapped(state: ReplState, text: str, first: str, rest: str) -> None:
    """Wrap a text at words, behind `first` on its first line and `rest` on the others."""
    width = max(state.width() - 1, len(rest) + 20)
    state.print(
        textwrap.fill(
            text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
    )


@command(
    "show",
    "[what]",
    "Show info, license, template, prompt (the exact one), or tool N (its whole output).",
    complete=lambda state, word: _PARTS,
)
def show(state: ReplState, rest: str) -> Answer:
    preset = state.chat.preset
    if rest == "info":
        known = model_facts(preset, state.world)
        tables.model_facts(state.world, known, state.chat.session or "")
    elif rest in ("license", "licence"):
        state.print(preset.licence)
    elif rest == "template":
        _show_template(state)
    elif rest == "prompt":
        state.print(preset.format.render(state.chat.current_window().messages).text)
    elif rest.split(" ")[0] == "tool":
        number = number_of(rest.removeprefix("tool").strip(), "/show tool")
        state.print(state.chat.tool_output(number))
    else:
        hint = did_you_mean(rest, _PARTS) if rest else ""
        raise UsageError(f"/show takes {', '.join(_PARTS)}", hint)
    return None


def _show_template(state: ReplState) -> None:
    """The checks of `llmchat doctor`, then the format itself."""
    preset = state.chat.preset
    for line in doctor.lines(doctor.examine(preset, state.world)):
        state.print(line)
    state.print("\nThe format itself:\n")
    template = preset.format.template
    state.print(pretty_json(preset.format.parts) if template is None else template)


@command("stats", "", "Show the tokens and times of the last answer.")
def stats(state: ReplState, rest: str) -> Answer:
    for line in status.statistics(state.chat):
        state.print(line)
    return None
