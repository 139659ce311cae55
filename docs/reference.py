"""The pages docs/json.md, docs/environment.md and docs/families.md, from the source."""

from importlib import import_module

import msgspec

from llmchat.commands.json_reference import OUTPUTS, fields_of
from llmchat.engines.transformers import families
from llmchat.gguf_file.architectures import ARCHITECTURES, Architecture
from llmchat.settings import Options
from llmchat.settings.types import in_words
from llmchat.settings.variables import OWN, STANDARD

_HEAD = "Generated from the source by `make docs`; do not edit."


def json_page() -> str:
    """Every command with --json, and every field that it prints."""
    sections = [_section(command, kind) for command, kind in OUTPUTS.items()]
    lines = [
        "# JSON output",
        "",
        _HEAD,
        "",
        "With `--json` a command prints one JSON value on stdout and nothing else there.",
        "Later versions may add fields; the fields below keep their names and types.",
        "`a.b` is field `b` of the object in `a`;",
        "`a[].b` is field `b` of each object in the list `a`.",
        "An *optional* field is absent when it has no value.",
        "",
        *sections,
    ]
    return "\n".join(lines)


def families_page() -> str:
    """Every family that has a plan, and the model types of config.json that it reads."""
    types: dict[str, list[str]] = {}
    for kind, module in families.MODULES.items():
        types.setdefault(module, []).append(kind)
    lines = [
        "# Families",
        "",
        _HEAD,
        "",
        "A family is a file in `llmchat/engines/transformers/families`. It turns a config.json",
        "into a plan of blocks, which the compiled step and torch run ([engine](engine.md)).",
        "Everything else that transformers can load runs on transformers' own modules.",
        "",
        "| `model_type` in config.json | family |",
        "|---|---|",
        *(f"| {_quoted(kinds)} | {_about(module)} |" for module, kinds in sorted(types.items())),
        "",
        "## GGUF files",
        "",
        "GGUF files of these architectures run as they are.",
        "`llmchat convert` writes those with a tick.",
        "",
        "| `general.architecture` | `model_type` | written |",
        "|---|---|:-:|",
        *(_architecture_row(*one) for one in sorted(ARCHITECTURES.items())),
    ]
    return "\n".join(lines) + "\n"


def _architecture_row(name: str, known: Architecture) -> str:
    kinds = _quoted([known.model_type, *known.also])
    return f"| `{name}` | {kinds} | {'✓' if known.is_written else '–'} |"


def _quoted(kinds: list[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)


def _about(module: str) -> str:
    """The first paragraph of a family's docstring."""
    text = import_module(f"{families.__name__}.{module}").__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _section(command: str, kind: object) -> str:
    lists = str(kind).startswith("list[")
    lines = [
        f"## llmchat {command} --json",
        "",
        "A list of objects:" if lists else "An object:",
        "",
        "| field | type | meaning |",
        "|---|---|---|",
    ]
    for field in fields_of(kind):
        optional = ", optional" if field.optional else ""
        lines.append(f"| `{field.path}` | {field.kind}{optional} | {field.about} |")
    return "\n".join([*lines, ""])


def environment_page() -> str:
    """Every environment variable that llmchat reads."""
    options = [
        f"| `LLMCHAT_{field.path.upper()}` | {in_words(_TYPES[field.path])} | {field.about} |"
        for field in fields_of(Options)
    ]
    return "\n".join([
        "# Environment variables",
        "",
        _HEAD,
        "",
        "## Options",
        "",
        "Each option has a flag, a variable and a key in config.toml of the same name.",
        "A flag overrides its variable, and a variable overrides the config file;",
        "`llmchat config show --origin` shows where each value comes from.",
        "",
        "| variable | value | meaning |",
        "|---|---|---|",
        *options,
        "",
        "## Other variables of llmchat",
        "",
        *_table(OWN),
        "",
        "## Variables of other programs",
        "",
        *_table(STANDARD),
        "",
    ])  # fmt: skip


def _table(variables: dict[str, str]) -> list[str]:
    rows = [f"| `{name}` | {about} |" for name, about in variables.items()]
    return ["| variable | meaning |", "|---|---|", *rows]


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Options)}
