"""Spellings of values that OpenAI's and vLLM's servers accept beside the plain one, and fields that change nothing here."""

import re
from typing import Any

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")

# Fields without an effect on the answer, whatever they say.
HARMLESS = frozenset({
    "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier", "prediction", "request_id",
})  # fmt: skip
# Values of further fields that ask for what is done anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "store": (False,),
    "verbosity": ("medium",),
    "moderation": (False,),
    "use_beam_search": (False,),
    "min_tokens": (0,),
    "length_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "include_obfuscation": (False,),
    "continuous_usage_stats": (False,),
}
# Parts of messages that our own answers and the client's types bring along; what a model thought aloud is never sent again.
OF_MESSAGES = frozenset({"refusal", "annotations", "reasoning_content", "reasoning", "name"})


# Levels of lists and objects in each other. Templates and other readers go down a level a call.
MAX_NESTING = 64


def check_nesting(value: Any) -> None:
    """Raises ValueError for JSON that is nested deeper than MAX_NESTING."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        inner = (
            part.values() if isinstance(part, dict) else part
            for part in level
            if isinstance(part, dict | list)
        )
        level = [part for parts in inner for part in parts]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_NESTING} levels")


def whole_number(value: Any) -> Any:
    """5.0 is 5 in JSON."""
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63
        else value
    )


def no_limit(value: Any) -> Any:
    """-1 tokens stand for as many as there is room for."""
    value = whole_number(value)
    return None if value == -1 and not isinstance(value, bool) else value


def seconds(value: Any) -> Any:
    """Seconds of a duration such as `5m`, `1h30m` or `90s`; any negative one is for ever."""
    if not isinstance(value, str):
        return -1.0 if isinstance(value, int | float) and -float("inf") < value < 0 else value
    text = value.strip()
    if re.fullmatch(r"-\d+(?:\.\d+)?(?:ms|s|m|h)?", text):
        return -1.0
    if re.fullmatch(r"\d{1,12}(?:\.\d+)?", text):
        return float(text)
    if len(text) > 40 or not _DURATION.fullmatch(text):
        raise ValueError("must be seconds, or a duration such as 90s, 5m or 1h")
    return sum(
        float(number) * _SECONDS[unit]
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    )


def unsupported(extra: dict[str, Any] | None) -> str | None:
    """The first of these fields that would have to be ignored; None where all of them change nothing."""
    for name, value in (extra or {}).items():
        if value is not None and name not in HARMLESS and value not in NEUTRAL.get(name, ()):
            return name
    return None
