"""Commands that change how the next answers are made: set, system, model, lora, think, plain."""

from collections.abc import Iterable
from typing import Any

import msgspec

from llmchat.engines import Sampling
from llmchat.errors import UsageError, did_you_mean
from llmchat.models import pulled_presets
from llmchat.presets import ContextPolicy, settings_of
from llmchat.ui.commands.registry import Answer, command
from llmchat.ui.state import Talk, files_like

# The rest is for programs, not for a person at a terminal.
_SAMPLING = [name for name in Sampling.__struct_fields__ if name not in ("stops", "logprobs", "ignore_eos")]
# What /set calls it → the field of the context policy. `context` takes a size or the name of a policy.
_CONTEXT = {"context": "tokens", "policy": "policy", "turns": "turns", "low_water": "low_water"}
_POLICIES = ("drop-oldest", "last-n", "summary", "refuse")


def _names(talk: Talk, line: str) -> Iterable[str | tuple[str, str]]:
    name, _, rest = line.partition(" ")
    if rest or line.endswith(" "):
        return [f"{name} {value}" for value in (*(_POLICIES if name in ("policy", "context") else ()), "default")]
    return [(name, _range(name)) for name in (*_SAMPLING, *_CONTEXT)]


def _models(talk: Talk, word: str) -> Iterable[tuple[str, str]]:
    return [(preset.name, preset.title) for preset, _ in pulled_presets(talk.world)]


def _adapters(talk: Talk, word: str) -> Iterable[str]:
    here = {str(source.repo) for preset, _ in pulled_presets(talk.world) for source in preset.adapters}
    return ["off", *sorted(here), *files_like(word)]


@command(
    "set", "[name [value]]", "Show settings with their ranges, or change one; `default` takes the preset's value back.", complete=_names
)
def set_value(talk: Talk, rest: str) -> Answer:
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    if name == "context" and value in _POLICIES:
        name = "policy"
    values = settings_of(talk.chat.sampling, talk.chat.preset.context)
    if name and name not in values:
        raise UsageError(f"there is no setting `{name}`", did_you_mean(name, list(values)) or f"there are {', '.join(values)}")
    if value:
        _change(talk, name, value)
        values = settings_of(talk.chat.sampling, talk.chat.preset.context)
    for shown in [name] if name else values:
        line = f"{shown:20} {'none' if values[shown] is None else values[shown]}"
        talk.say(line if value else f"{line:30} {_range(shown)}".rstrip())
    return None


@command("system", "[text]", "Show or set the system text.")
def system(talk: Talk, rest: str) -> Answer:
    if rest:
        talk.chat.instruct(rest)
    talk.say(talk.chat.conversation.system or "no system text; the model's own default holds, if it has one")
    return None


@command(
    "model",
    "[name]",
    "Show the model, or go on with another one.",
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
    "Put on another adapter (a folder or org/name), stronger or weaker, or take it off.",
    complete=_adapters,
)
def lora(talk: Talk, rest: str) -> Answer:
    if rest:
        talk.switch(adapter="none" if rest == "off" else rest)
    talk.say(talk.chat.engine.describe())
    return None


@command("think", "[on|off]", "Show or fold what the model thinks aloud; it is never sent again.", complete=lambda t, w: ["on", "off"])
def think(talk: Talk, rest: str) -> Answer:
    if rest not in ("", "on", "off"):
        raise UsageError(f"/think takes on or off, not `{rest}`")
    talk.thoughts = rest == "on" if rest else not talk.thoughts
    talk.say("thinking is shown" if talk.thoughts else "thinking is folded")
    return None


@command("plain", "", "Markdown on or off.")
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


def _range(name: str) -> str:
    """What a setting may be, read from its type."""
    kind: type[Any] = ContextPolicy if name in _CONTEXT else Sampling
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"][_CONTEXT.get(name, name)]
    schema = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if low is None:
        return ""
    more = "more than " if "exclusiveMinimum" in schema else ""
    high = schema.get("maximum")
    return f"{more}{low:g} to {high:g}" if high is not None and high < 2**31 else f"{more}{low:g} or more" if not more else f"{more}{low:g}"
