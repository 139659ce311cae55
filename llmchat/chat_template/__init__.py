"""Render the chat template of a checkpoint: an untrusted Jinja program.

Templates run in jinja2's sandbox with a fixed list of names (`sandbox`) and within a budget of
steps, memory and time (`budget`). jinja2 is imported when the first template is compiled.
"""

import functools
import re
from collections.abc import Mapping
from types import CodeType
from typing import Any

from llmchat.chat_template.budget import BeyondLimits, Budget
from llmchat.errors import Mismatch

# What templates tell speakers apart by: <|im_start|>, <start_of_turn>, </s>, [INST], <<SYS>>.
_LABEL = re.compile(r"<[|｜][\w ▁]+[|｜]>|<</?\w+>>|</?[a-z]\w*>|\[/?[A-Z][A-Z_]*\]")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_MAX_ERROR = 300


def run(template: str, variables: Mapping[str, Any], name: str) -> str:
    """Render a template with these variables. name: of the model or format, for errors.

    Raises Mismatch if the template rejects them, has a syntax error or exceeds its limits.
    """
    try:
        return _render(_compile(template), variables)
    except BeyondLimits as error:
        raise _refusal(name, f"it {error}") from error
    except Exception as error:
        # The program is a stranger's: it may raise anything.
        raise _refusal(name, _one_line(error)) from error


def labels(template: str) -> frozenset[str]:
    """The marks in a template that a message could spell to pose as another speaker."""
    return frozenset(_LABEL.findall(template))


@functools.lru_cache(maxsize=64)
def names(template: str) -> frozenset[str]:
    """The names in the code of a template, such as its variables, and not those in its text."""
    code = " ".join(_CODE.findall(_COMMENT.sub("", template)))
    return frozenset(_NAME.findall(_STRING.sub("", code)))


def _render(code: CodeType, variables: Mapping[str, Any]) -> str:
    from llmchat.chat_template.sandbox import template_of

    budget = Budget(variables)
    pieces = []
    for piece in template_of(code, budget).generate(**variables):
        budget.spend(len(piece))
        pieces.append(piece)
    return "".join(pieces)


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> CodeType:
    from llmchat.chat_template.sandbox import compile_template

    return compile_template(template)


def _refusal(name: str, reason: str) -> Mismatch:
    return Mismatch(f"the chat template of `{name}` refuses this conversation: {reason}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}…"
