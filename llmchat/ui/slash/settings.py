"""Commands for how answers are made and shown: set, system, model, lora, think, plain."""

import re
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from llmchat.errors import UsageError, any_of, did_you_mean
from llmchat.models.locate import pulled_presets
from llmchat.presets import setting_names, setting_type, settings_of
from llmchat.reply import with_thinking
from llmchat.settings.types import Policy, Think, choices, in_words, title
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
    name, value = (*re.split(r"[ =]", rest, maxsplit=1), "")[:2]
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
    if isinstance(value, dict) and "kind" in value:
        return words_of(msgspec.convert(value, Structure))
    if isinstance(value, dict | tuple):
        return msgspec.json.encode(value).decode()
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
    "[level|budget N|show|hide]",
    "Set how much the model thinks; show or hide its thoughts, which are never sent back.",
    complete=lambda state, word: [*choices(Think), "budget", "default", "show", "hide"],
)
def think(state: ReplState, rest: str) -> Answer:
    word, _, number = rest.partition(" ")
    if rest in ("show", "hide"):
        state.show_thinking = rest == "show"
    elif word == "budget":
        _change(state, "think_budget", number.strip() or "default")
    elif rest == "default":
        for name in ("think", "think_budget"):
            if name in state.chat.settings:
                state.chat.unset(name)
    elif rest:
        _set_level(state, rest)
    state.print(_thinking_text(state))
    return None


def _set_level(state: ReplState, level: str) -> None:
    if level not in choices(Think):
        allowed = any_of([*choices(Think), "budget N", "show", "hide"])
        raise UsageError(f"/think takes {allowed}, not `{level}`")
    chat = state.chat
    # Raises an error for a model that cannot do that.
    with_thinking(chat.preset, replace(chat.sampling, think=level), chat.conversation, chat.engine)
    chat.set({"think": level})


def _thinking_text(state: ReplState) -> str:
    sampling = state.chat.sampling
    level = sampling.think or "as the model decides"
    budget = sampling.think_budget
    limit = "no budget" if budget is None else f"at most {budget:,} tokens"
    return f"thinking: {level}, {limit}, {'shown' if state.show_thinking else 'hidden'}"


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
