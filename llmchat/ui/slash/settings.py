"""Commands for how answers are made and shown: set, system, model, lora, think, plain."""

from collections.abc import Iterable

import msgspec

from llmchat.errors import UsageError, any_of, did_you_mean
from llmchat.models.locate import pulled_presets
from llmchat.presets import setting_names, setting_type, settings_of
from llmchat.settings.types import Policy, choices, in_words, title
from llmchat.structure import Structure
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.slash.structure import set_structure, words_of
from llmchat.ui.state import ReplState, paths_starting_with

# `/set context` takes one of these as well as a size.
_POLICIES = choices(Policy)


def _names(state: ReplState, line: str) -> Iterable[str | tuple[str, str]]:
    name, _, rest = line.partition(" ")
    if rest or line.endswith(" "):
        values = [*_POLICIES, "default"] if name in ("policy", "context") else ["default"]
        return [f"{name} {value}" for value in values]
    return [(name, f"{_meaning(name)}: {_allowed(name)}") for name in setting_names()]


def _models(state: ReplState, word: str) -> Iterable[tuple[str, str]]:
    return [(preset.name, preset.title) for preset, _ in pulled_presets(state.world)]


def _adapters(state: ReplState, word: str) -> Iterable[str]:
    pulled = (preset for preset, _ in pulled_presets(state.world))
    adapters = {str(source.repo) for preset in pulled for source in preset.adapters}
    return ["off", *sorted(adapters), *paths_starting_with(word)]


@command(
    "set",
    "[name [value]]",
    "Show the settings, or change one for this chat; `default` resets it.",
    complete=_names,
)
def set_value(state: ReplState, rest: str) -> Answer:
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    if name == "context" and value in _POLICIES:
        name = "policy"
    values = _values(state)
    if name and name not in values:
        raise UsageError(
            f"there is no setting `{name}`",
            did_you_mean(name, list(values)) or f"use {any_of(values)}",
        )
    if value:
        _change(state, name, value)
        state.print(f"{name:20} {_value_text(_values(state)[name])}")
        return None
    for each in [name] if name else values:
        _print_setting(state, each, values[each])
    if not name and state.chat.settings:
        state.print("* changed in this chat; `/set NAME default` resets it")
    return None


def _values(state: ReplState) -> dict[str, object]:
    return settings_of(state.chat.sampling, state.chat.preset.context)


def _print_setting(state: ReplState, name: str, value: object) -> None:
    mark = "*" if name in state.chat.settings else " "
    cells = f"{name:18}  {_value_text(value):11}  {_meaning(name):10}  {_allowed(name)}"
    state.print(f"{mark} {cells}")


def _value_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return words_of(msgspec.convert(value, Structure))
    # Seeds are shown as they are typed.
    return f"{value:,}" if isinstance(value, int) and value < 10**9 else str(value)


@command("system", "[text]", "Show or set the system text.")
def system(state: ReplState, rest: str) -> Answer:
    if rest:
        state.chat.instruct(rest)
    state.print(
        state.chat.conversation.system
        or "no system text; the model's default applies, if it has one"
    )
    return None


@command(
    "model",
    "[name]",
    "Show the model, or switch to another one.",
    complete=_models,
)
def model(state: ReplState, rest: str) -> Answer:
    if rest:
        state.switch(model=rest)
    state.print(state.chat.engine.describe())
    return None


@command(
    "lora",
    "[name[:scale]|off]",
    "Apply an adapter (a folder or org/name), change its scale, or remove it.",
    complete=_adapters,
)
def lora(state: ReplState, rest: str) -> Answer:
    if rest:
        state.switch(adapter="none" if rest == "off" else rest)
    state.print(state.chat.engine.describe())
    return None


@command(
    "think",
    "[on|off]",
    "Show or hide the model's thinking, which is never sent back to it.",
    complete=lambda state, word: ["on", "off"],
)
def think(state: ReplState, rest: str) -> Answer:
    if rest not in ("", "on", "off"):
        raise UsageError(f"/think takes on or off, not `{rest}`")
    state.show_thinking = rest == "on" if rest else not state.show_thinking
    state.print("thinking is shown" if state.show_thinking else "thinking is hidden")
    return None


@command("plain", "", "Turn Markdown on or off.")
def plain(state: ReplState, rest: str) -> Answer:
    state.plain = not state.plain
    state.print("plain text" if state.plain else "Markdown")
    return None


def _change(state: ReplState, name: str, value: str) -> None:
    if value == "default":
        return state.chat.unset(name)
    if name == "schema":
        return set_structure(state, value)
    limit = state.chat.engine.context
    if name == "context" and value.isdecimal() and int(value) > limit:
        raise UsageError(
            f"a window of {int(value):,} tokens is more than the model's {limit:,}",
            "`/set context 0` uses all of it",
        )
    state.chat.set({name: value})
    return None


def _meaning(name: str) -> str:
    return title(setting_type(name))


def _allowed(name: str) -> str:
    if name == "schema":
        return "see /help schema"
    return in_words(setting_type(name))
