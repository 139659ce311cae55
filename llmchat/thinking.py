"""How much a model thinks before it answers, by what its chat template understands.

Templates differ: a switch (`enable_thinking` of Qwen3, GLM, SmolLM3, Gemma 4, EXAONE; `thinking` of
Granite 3.3 and DeepSeek V3.1), an effort (`reasoning_effort` of gpt-oss and Qwen3.8), a number of
tokens (`thinking_budget` of Seed-OSS), or a word in the system text (`/no_think` of Nemotron Nano
2). A model that always thinks is made to close its first thought at once.
"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Conversation
from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets import Preset

# OpenAI's names of efforts at which a model does not think.
_OFF = ("off", "none", "minimal")
_SWITCHES = ("enable_thinking", "thinking")
_SOFT_ON, _SOFT_OFF = "/think", "/no_think"
# Tokens for Seed-OSS, whose card asks for multiples of 512; -1 is unlimited, 0 does not think.
_TOKENS = {"on": -1, "low": 512, "medium": 2048, "high": 8192}


def applied(
    preset: Preset, sampling: Sampling, conversation: Conversation
) -> tuple[Preset, Sampling, Conversation]:
    """The three as the model understands `sampling.think`, which is None afterwards.

    Raises UsageError if its format has no way to say it.
    """
    level, form = sampling.think, preset.format
    if sampling.think_budget is not None and uses_variable(form.template, "thinking_budget"):
        preset = with_variables(preset, {"thinking_budget": sampling.think_budget})
    if level is None:
        return preset, sampling, conversation
    sampling = replace(sampling, think=None)
    values = variables(form.template, level)
    if values is not None:
        return with_variables(preset, values), sampling, conversation
    if _SOFT_OFF in (form.template or ""):
        word = _SOFT_OFF if level == "off" else _SOFT_ON
        system = f"{conversation.system} {word}".lstrip()
        return preset, sampling, conversation.instruct(system)
    _check_without_switch(preset, level)
    if level == "off" and form.thinks:
        sampling = replace(sampling, think_budget=0)
    return preset, sampling, conversation


def variables(template: str | None, level: str) -> dict[str, Any] | None:
    """The variables of a template that express a level or one of OpenAI's efforts.

    None if it has none for this. `on` is the template's own effort.
    """
    off = level in _OFF
    found: dict[str, Any] = {name: not off for name in _SWITCHES if uses_variable(template, name)}
    if uses_variable(template, "thinking_budget"):
        found["thinking_budget"] = 0 if off else _TOKENS.get(level, -1)
    if uses_variable(template, "reasoning_effort"):
        effort = _effort(template or "", level)
        if effort and not (off and found):
            return {**found, "reasoning_effort": effort}
        if not found:
            return {} if level == "on" else None
    return found or None


def _effort(template: str, level: str) -> str:
    """How a template spells an effort; "" if it has no word for it."""
    if level == "on":
        return ""
    if level == "off":
        return "none" if _quotes(template, "none") else ""
    # Qwen3.8 raises an error for any other value than these.
    if level == "high" and _quotes(template, "xhigh") and not _quotes(template, "high"):
        return "xhigh"
    return level


def _quotes(template: str, word: str) -> bool:
    return bool(re.search(rf"""(['"]){word}\1""", template))


def with_variables(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with these variables for its chat template; those that it has already stay."""
    form = preset.format
    tokens = {**values, **form.template_tokens}
    return replace(preset, format=replace(form, template_tokens=tokens))


def uses_variable(template: str | None, name: str) -> bool:
    """Whether the code of a chat template mentions a variable of this name."""
    code = re.findall(r"\{[{%](.*?)[%}]\}", template or "", re.S)
    names = (re.sub(r"""'[^']*'|"[^"]*\"""", "''", part) for part in code)
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", part) for part in names)


def _check_without_switch(preset: Preset, level: str) -> None:
    """Off is true of a model that never thinks, and on of one that always does."""
    name, thinks = preset.name, preset.format.thinks
    if uses_variable(preset.format.template, "reasoning_effort"):
        raise UsageError(
            f"{name} always thinks, so thinking cannot be {level}", "use low, medium or high"
        )
    if level == "off" or (level == "on" and thinks):
        return
    if thinks:
        raise UsageError(
            f"{name} thinks without levels, so thinking cannot be {level}",
            "use on or off; a budget limits it (--think-budget, `/think budget N`)",
        )
    raise UsageError(
        f"{name} does not think: its prompt format has no place for thoughts",
        "a model that does is qwen3-4b; `off` is accepted by every model",
    )
