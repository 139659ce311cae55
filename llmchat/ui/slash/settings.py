"""Commands that change how the next answers are made: set, system, model, lora, think, plain."""

from collections.abc import Iterable

from llmchat.errors import UsageError, any_of, did_you_mean
from llmchat.models.loading import pulled_presets
from llmchat.presets import setting_kind, setting_names, settings_of
from llmchat.settings.types import Policy, choices, in_words, title
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import Talk, files_like

# `/set context` takes one of these as well as a size.
_POLICIES = choices(Policy)


def _names(talk: Talk, line: str) -> Iterable[str | tuple[str, str]]:
    name, _, rest = line.partition(" ")
    if rest or line.endswith(" "):
        return [
            f"{name} {value}"
            for value in (*(_POLICIES if name in ("policy", "context") else ()), "default")
        ]
    return [(name, f"{_meaning(name)}: {_allowed(name)}") for name in setting_names()]


def _models(talk: Talk, word: str) -> Iterable[tuple[str, str]]:
    return [(preset.name, preset.title) for preset, _ in pulled_presets(talk.world)]


def _adapters(talk: Talk, word: str) -> Iterable[str]:
    here = {
        str(source.repo) for preset, _ in pulled_presets(talk.world) for source in preset.adapters
    }
    return ["off", *sorted(here), *files_like(word)]


@command(
    "set",
    "[name [value]]",
    "Show the settings, or change one for this chat; `default` resets it.",
    complete=_names,
)
def set_value(talk: Talk, rest: str) -> Answer:
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    if name == "context" and value in _POLICIES:
        name = "policy"
    values = settings_of(talk.chat.sampling, talk.chat.preset.context)
    if name and name not in values:
        raise UsageError(
            f"there is no setting `{name}`",
            did_you_mean(name, list(values)) or f"use {any_of(values)}",
        )
    if value:
        _change(talk, name, value)
        values = settings_of(talk.chat.sampling, talk.chat.preset.context)
    if value:
        talk.say(f"{name:20} {_written(values[name])}")
        return None
    for shown in [name] if name else values:
        mark = "*" if shown in talk.chat.settings else " "
        talk.say(
            f"{mark} {shown:18}  {_written(values[shown]):11}  {_meaning(shown):10}  {_allowed(shown)}"
        )
    if not name and talk.chat.settings:
        talk.say("* changed in this chat; `/set NAME default` resets it")
    return None


def _written(value: object) -> str:
    return (
        "none"
        if value is None
        else f"{value:,}"
        if isinstance(value, int) and value < 10**9
        else str(value)
    )


@command("system", "[text]", "Show or set the system text.")
def system(talk: Talk, rest: str) -> Answer:
    if rest:
        talk.chat.instruct(rest)
    talk.say(
        talk.chat.conversation.system
        or "no system text; the model's default applies, if it has one"
    )
    return None


@command(
    "model",
    "[name]",
    "Show the model, or switch to another one.",
    complete=_models,
)
def model(talk: Talk, rest: str) -> Answer:
    if rest:
        talk.switch(model=rest)
    talk.say(talk.chat.engine.describe())
    return None


@command(
    "lora",
    "[name[:scale]|off]",
    "Apply another adapter (a folder or org/name), scale it, or remove it.",
    complete=_adapters,
)
def lora(talk: Talk, rest: str) -> Answer:
    if rest:
        talk.switch(adapter="none" if rest == "off" else rest)
    talk.say(talk.chat.engine.describe())
    return None


@command(
    "think",
    "[on|off]",
    "Show or hide the model's thinking; it is never sent back.",
    complete=lambda t, w: ["on", "off"],
)
def think(talk: Talk, rest: str) -> Answer:
    if rest not in ("", "on", "off"):
        raise UsageError(f"/think takes on or off, not `{rest}`")
    talk.thoughts = rest == "on" if rest else not talk.thoughts
    talk.say("thinking is shown" if talk.thoughts else "thinking is hidden")
    return None


@command("plain", "", "Turn Markdown on or off.")
def plain(talk: Talk, rest: str) -> Answer:
    talk.plain = not talk.plain
    talk.say("plain text" if talk.plain else "Markdown")
    return None


def _change(talk: Talk, name: str, value: str) -> None:
    if value == "default":
        return talk.chat.unset(name)
    if name == "context" and value.isdecimal() and int(value) > talk.chat.engine.context:
        raise UsageError(
            f"a window of {int(value):,} tokens is more than the model's {talk.chat.engine.context:,}",
            "`/set context 0` uses all of it",
        )
    talk.chat.set({name: value})
    return None


def _meaning(name: str) -> str:
    return title(setting_kind(name))


def _allowed(name: str) -> str:
    return in_words(setting_kind(name))
