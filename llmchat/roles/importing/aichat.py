"""Roles and macros of aichat (https://github.com/sigoden/aichat/wiki/Role-Guide, /Macro-Guide).

A role is a Markdown file with a YAML head, in old versions an entry of roles.yaml. Its text is a
question with `__INPUT__`, or a system text, which may end with examples after `### INPUT:` and
`### OUTPUT:`. A macro is a YAML file with `steps`, the lines of a chat.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat.errors import UsageError
from llmchat.roles.importing.found import (
    Found,
    left_out,
    sampling_of,
    slug,
    table_of,
    text_of,
    yaml_of,
)

_HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.S | re.M)
_ARGUMENT = re.compile(r"__ARG(\d+)__")
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SAMPLING = ("temperature", "top_p")
_KNOWN = ("name", "prompt", "model", "use_tools", *_SAMPLING)


def of_markdown(name: str, text: str, path: Path) -> Found:
    """The role in a file of the folder `roles`."""
    head = _HEAD.match(text)
    facts = (yaml_of(head[1], path) or {}) if head else {}
    if not isinstance(facts, dict):
        raise UsageError(f"{path}: the YAML between `---` is not a mapping")
    return _role(name, facts, text[head.end() :] if head else text, path)


def of_list(entries: list[Any], path: Path) -> list[Found]:
    """The roles in a roles.yaml."""
    found = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise UsageError(f"{path}: entry {number} is not a role with a `name`")
        prompt = text_of(entry.get("prompt"), "prompt", path)
        found.append(_role(entry["name"].partition(":")[0], entry, prompt, path))
    return found


def of_macro(name: str, value: Mapping[str, Any], path: Path) -> Found:
    """A macro as a role of several turns. Its commands, such as `.model`, are left out."""
    steps, variables = value.get("steps"), value.get("variables") or []
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise UsageError(f"{path}: `steps` is not a list of strings")
    if not isinstance(variables, list) or not all(isinstance(one, dict) for one in variables):
        raise UsageError(f"{path}: `variables` is not a list of mappings")
    rest = [str(one.get("name")) for one in variables if one.get("rest")]
    notes = [f"the step `{step}` is left out" for step in steps if step.startswith(".")]
    left_out(value, ("steps", "variables"), notes)
    asked = [_with_variables(step, rest) for step in steps if not step.startswith(".")]
    if not asked:
        raise UsageError(f"{path}: no step of the macro is a question")
    values = {
        str(one.get("name")): str(one["default"])
        for one in variables
        if one.get("default") is not None and str(one.get("name")) not in rest
    }
    table = table_of(prompt=asked[0], once=True, turns=asked[1:], values=values)
    return Found(slug(name), table, path, notes)


def _role(name: str, facts: Mapping[str, Any], prompt: str, path: Path) -> Found:
    notes: list[str] = []
    left_out(facts, _KNOWN, notes)
    if tools := facts.get("use_tools"):
        notes.append(f"its tools ({tools}) are aichat's; `tools` names those of llmchat")
    sampling = sampling_of({key: facts.get(key) for key in _SAMPLING}, notes)
    text = _escaped(prompt.strip())
    asks = "__INPUT__" in text
    text = _ARGUMENT.sub(r"${arg\1}", text.replace("__INPUT__", "${input}"))
    table = table_of(
        system="" if asks else _with_examples(text), prompt=text if asks else "", sampling=sampling
    )
    if not table:
        raise UsageError(f"{path}: the role `{name}` has no text")
    if found := _VARIABLE.findall(text):
        notes.append(f"`{{{{{found[0]}}}}}` stays as it is: llmchat does not fill it")
    return Found(slug(name), table, path, notes, model=str(facts.get("model") or ""))


def _with_examples(text: str) -> str:
    """A system text whose examples are marked as such."""
    start = text.find("### INPUT:")
    if start < 0 or "### OUTPUT:" not in text[start:]:
        return text
    return f"{text[:start].rstrip()}\n\nExamples:\n\n{text[start:]}".lstrip()


def _with_variables(step: str, rest: list[str]) -> str:
    """A step with `$name` for `{{name}}`; what takes the rest of a line is the input."""
    return _VARIABLE.sub(
        lambda found: "${input}" if found[1] in rest else f"${{{found[1]}}}", _escaped(step)
    )


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
