"""Templates of simonw/llm (https://llm.datasette.io/en/stable/templates.html).

YAML files with `prompt`, `system`, `model`, `options`, `defaults` and `schema_object`; `$name` has
the same meaning there.
"""

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat.errors import UsageError
from llmchat.roles.importing.found import Found, left_out, sampling_of, slug, table_of, text_of

_KNOWN = ("name", "prompt", "system", "model", "options", "defaults", "schema_object")


def of_template(name: str, value: Mapping[str, Any] | str, path: Path) -> Found:
    """A template; a text alone is its prompt."""
    facts = {"prompt": value} if isinstance(value, str) else value
    notes: list[str] = []
    left_out(facts, _KNOWN, notes)
    prompt = text_of(facts.get("prompt"), "prompt", path)
    system = text_of(facts.get("system"), "system", path)
    schema = _table(facts, "schema_object", path)
    table = table_of(
        system=system,
        prompt=prompt,
        values=_defaults(_table(facts, "defaults", path), prompt + system, notes),
        schema=json.dumps(schema, indent=2, default=str) if schema else "",
        sampling=sampling_of(_table(facts, "options", path), notes),
    )
    if not table:
        raise UsageError(f"{path} has no prompt and no system text", "it is not a template of llm")
    return Found(slug(name), table, path, notes, model=text_of(facts.get("model"), "model", path))


def _table(facts: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = facts.get(key) or {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: `{key}` is not a table")
    return value


def _defaults(defaults: Mapping[str, Any], text: str, notes: list[str]) -> dict[str, str]:
    """The default values of names that the template uses."""
    used = string.Template(text).get_identifiers()
    unused = [name for name in defaults if name not in used]
    notes += [f"the default of `{name}` is left out: no text uses it" for name in unused]
    return {name: str(value) for name, value in defaults.items() if name in used}
