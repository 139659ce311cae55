"""Chat templates: Jinja programs that come with a checkpoint, so nothing they do is trusted.

They run in jinja2's sandbox, with the names that chat templates use and no others (template_sandbox), and within a budget of steps, memory and
time that no operation can pass (template_budget).
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from llmchat.chat_template.budget import BeyondLimits, Budget, spending
from llmchat.errors import Mismatch

# What templates use to tell speakers apart: <|im_start|>, <start_of_turn>, </s>, [INST], <<SYS>>.
_LABEL = re.compile(r"<[|｜][\w ▁]+[|｜]>|<</?\w+>>|</?[a-z]\w*>|\[/?[A-Z][A-Z_]*\]")


def run(template: str, variables: Mapping[str, Any], name: str) -> str:
    """The text a template makes of these variables. Raises Mismatch when it refuses them, is no template, or goes beyond its limits."""
    try:
        with spending(Budget(variables)) as budget:
            return _written(_compile(template), variables, budget)
    except BeyondLimits as error:
        raise Mismatch(
            f"the chat template of `{name}` refuses this conversation: it {error}"
        ) from error
    except Exception as error:
        # It is a stranger's program: whatever it raises is its own.
        raise Mismatch(
            f"the chat template of `{name}` refuses this conversation: {_one_line(error)}"
        ) from error


def labels(template: str) -> frozenset[str]:
    """The marks in a template that could pose as its own, were they written into a message."""
    return frozenset(_LABEL.findall(template))


def _written(program: Any, variables: Mapping[str, Any], budget: Budget) -> str:
    pieces = []
    for piece in program.generate(**variables):
        budget.spend(len(piece))
        pieces.append(piece)
    return "".join(pieces)


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> Any:
    from llmchat.chat_template.sandbox import compile_template

    return compile_template(template)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
