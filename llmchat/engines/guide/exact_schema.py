"""A JSON Schema rewritten where llguidance takes more than the standard allows.

Its dates have a 29th of February in every year, its times a leap second in every minute, and names
of hosts any length; here patterns stand for these formats. `\\s` of JSON Schema contains U+FEFF,
that of Rust does not.
"""

import json
import re
from typing import Any

# Keywords that hold a schema, a list of them, or a table of them.
_ONE = ("items", "additionalProperties", "additionalItems", "propertyNames", "not", "contains")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_TABLES = ("properties", "patternProperties", "$defs", "definitions")

# No year 0, which is not in Python's calendar.
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_FOURTH = "(?:0[48]|[2468][048]|[13579][26])"
_LEAP_YEAR = f"(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_FRACTION = r"(?:\.[0-9]+)?"
_ZONE = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_CLOCK = f"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{_FRACTION}{_ZONE}"
# Of the leap seconds only those of UTC.
_LEAP_SECOND = f"23:59:60{_FRACTION}(?:[Zz]|[+-]00:00)"
_TIME = f"(?:{_CLOCK}|{_LEAP_SECOND})"
_PATTERNS = {"date": _DATE, "time": _TIME, "date-time": f"{_DATE}[Tt]{_TIME}"}
# No two hyphens together: whether a name in Punycode is valid is beyond a grammar.
_HOSTNAME = {"pattern": "^(?:-?[^-])+$", "maxLength": 253}
# An escaped character, which may be the class of white space.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A control character in JSON that has no short escape.
_CONTROL = re.compile(r"(?<!\\)(?:\\\\)*(\\u00[01][0-9a-f])")
_CLASSES = {"s": r"[\s\uFEFF]", "S": r"[^\s\uFEFF]"}


def exact(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with patterns that are exact.

    Raises ValueError for a value that cannot be written without \\u, which answers do not use.
    """
    rewritten: dict[str, Any] = _exact(schema)
    return rewritten


def _exact(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    _check_values(schema)
    made = dict(schema)
    for key in _ONE:
        if key in made:
            made[key] = _exact(made[key])
    for key in _LISTS:
        if isinstance(made.get(key), list):
            made[key] = [_exact(each) for each in made[key]]
    for key in _TABLES:
        if isinstance(made.get(key), dict):
            made[key] = _exact_table(made[key], patterns=key == "patternProperties")
    if isinstance(made.get("pattern"), str):
        made["pattern"] = _exact_pattern(made["pattern"])
    return _without_format(made)


def _check_values(schema: dict[str, Any]) -> None:
    for key in ("const", "enum", "properties", "required"):
        names = list(schema[key]) if key == "properties" and key in schema else schema.get(key)
        if found := _CONTROL.search(json.dumps(names)):
            raise ValueError(
                f"`{key}` has the control character {found[1]}, which is never written"
            )


def _exact_table(table: dict[str, Any], *, patterns: bool) -> dict[str, Any]:
    return {_exact_pattern(key) if patterns else key: _exact(each) for key, each in table.items()}


def _exact_pattern(pattern: str) -> str:
    return _ESCAPED.sub(lambda escaped: _CLASSES.get(escaped[1], escaped[0]), pattern)


def _without_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a pattern in place of a format, beside the pattern that it has."""
    name = schema.get("format")
    if name == "hostname" and isinstance(schema.get("allOf", []), list):
        return schema | {"allOf": [*schema.get("allOf", []), _HOSTNAME]}
    if not isinstance(name, str) or name not in _PATTERNS:
        return schema
    others = schema.get("allOf", [])
    exact = {"pattern": f"^{_PATTERNS[name]}$"}
    rest = {key: value for key, value in schema.items() if key != "format"}
    return rest | {"allOf": [*others, exact]} if isinstance(others, list) else schema
