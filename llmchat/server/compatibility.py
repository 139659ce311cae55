"""Compatibility with clients of OpenAI and vLLM: other notations of values, ignored fields."""

import re
from collections.abc import Collection, Mapping
from typing import Any

# Of each field, the values that change nothing.
Defaults = Mapping[str, tuple[Any, ...]]
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")

# Fields that never change the answer.
IGNORED_FIELDS = frozenset({
    "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "service_tier", "prediction", "request_id",
})  # fmt: skip
# Values of other fields that request the default behaviour.
DEFAULT_VALUES: Defaults = {
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
# Fields of messages that clients copy from answers. Reasoning is never sent to the model again.
IGNORED_MESSAGE_FIELDS = frozenset(
    {"refusal", "annotations", "reasoning_content", "reasoning", "sources", "name"}
)

# The depth of nested lists and objects. Templates and other code use recursion for each level.
MAX_NESTING = 64


def check_nesting(value: Any) -> None:
    """Raises ValueError if the nesting exceeds MAX_NESTING."""
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
    """JSON does not distinguish 5.0 from 5."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if is_whole else value


def no_limit(value: Any) -> Any:
    """-1 tokens means no limit."""
    value = whole_number(value)
    return None if value == -1 and not isinstance(value, bool) else value


def seconds(value: Any) -> Any:
    """The seconds of a duration such as `5m`, `1h30m` or `90s`; -1.0 (forever) if negative."""
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


def unsupported(
    extra: Mapping[str, Any] | None, ignored: Collection[str] = (), defaults: Defaults | None = None
) -> str | None:
    """The first field that the server does not support; None if all can be ignored.

    ignored, defaults: in addition to IGNORED_FIELDS and DEFAULT_VALUES.
    """
    more = defaults or {}
    for name, value in (extra or {}).items():
        known = (None, *DEFAULT_VALUES.get(name, ()), *more.get(name, ()))
        if value not in known and name not in IGNORED_FIELDS and name not in ignored:
            return name
    return None
