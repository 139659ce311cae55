"""The options that a user can set: a flag, else LLMCHAT_*, else config.toml, else the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from llmchat.errors import UsageError, did_you_mean
from llmchat.parse_guard import read_toml
from llmchat.settings.sampling import SAMPLING_SETTINGS
from llmchat.settings.types import (
    Count,
    EngineName,
    KvKind,
    MemoryUse,
    Names,
    PlotKind,
    Policy,
    Rounds,
    Turns,
    Weights,
    check,
    in_words,
)
from llmchat.settings.world import World, private_file, private_folder, replace_text
from llmchat.structure.arguments import parse as parse_structure

__all__ = [
    "OF_MODEL",
    "Options",
    "Settings",
    "World",
    "checked_option",
    "private_file",
    "private_folder",
    "replace_text",
    "resolve",
]


class ModelOptions(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which model is used, how it is loaded and how a conversation is fitted into its window.

    None: as the preset says.
    """

    model: str = "smollm2"
    """Preset, Hub repo, folder or .gguf file."""
    base: str | None = None
    """Another base for the preset."""
    adapter: str | None = None
    """A LoRA adapter, or `none`."""
    format: str | None = None
    """Prompt format."""
    weights: Weights | None = None
    """Kind of weights."""
    kv: KvKind | None = None
    """Numbers of the KV cache: as the model computes, or in 8 bits."""
    engine: EngineName | None = None
    """What runs the model."""
    url: str | None = None
    """Server that runs the model."""
    draft: str | None = None
    """A small model of the same vocabulary that drafts for this one, or `none`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps`."""
    revision: str | None = None
    """Branch, tag or commit of the base."""
    context: Count | None = None
    """Context window in tokens; 0 for the model's own."""
    policy: Policy | None = None
    """What happens when a conversation does not fit."""
    turns: Turns | None = None
    """Turns that `last-n` keeps."""
    recall: bool | None = None
    """With policy `summary`: search what was dropped for what a question needs."""
    role: str | None = None
    """A role with its values: `NAME` or `NAME KEY=VALUE`; `off` for none."""
    system: str | None = None
    """System text."""
    schema: str | None = None
    """Form of the answers: see `/schema`."""


if TYPE_CHECKING:
    SamplingOptions = ModelOptions
else:
    # The sampling parameters are read by name, so their types need not be known to the checker.
    SamplingOptions = msgspec.defstruct(
        "SamplingOptions",
        [(name, kind | None, None) for name, kind in SAMPLING_SETTINGS.items()],
        bases=(ModelOptions,),
        frozen=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
        module=__name__,
    )


class Options(SamplingOptions, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every option that has a flag, an LLMCHAT_* variable and a config key of the same name."""

    offline: bool = False
    """Never use the network."""
    no_log: bool = False
    """Do not save chats."""
    plain: bool = False
    """No Markdown, no colour."""
    vi: bool = False
    """Vi keys in the input line."""
    plot: PlotKind = "auto"
    """Plots on a terminal: `auto`: images where it shows them, else text; `text`; or `none`."""
    memory: MemoryUse = "off"
    """Facts of the user in chats: `off`, `on`, or `propose`: the model also proposes new ones."""
    docs: Names = ()
    """Indexes that are searched for each question."""
    gitignore: bool = True
    """Leave out what `.gitignore` files name when a folder is read."""
    trust_remote_code: bool = False
    """Allow a checkpoint to run its own Python code."""
    searxng_url: str | None = None
    """SearXNG server to search the web with."""
    tool: Names = ()
    """Tools that the model may call."""
    mcp: Names = ()
    """MCP files: JSON with `mcpServers`."""
    allow: Names = ()
    """Tools that run without a question."""
    max_rounds: Rounds = 8
    """How often an answer may call tools."""
    root: str = "."
    """Folder that the `files` tools may read."""
    allow_private: bool = False
    """Let web tools fetch private and local addresses."""


class Settings(Struct, frozen=True):
    """Options, and where the value of each one came from."""

    options: Options
    origins: dict[str, str]


# The options that identify a model: a session keeps them to open the same model again.
OF_MODEL = (
    "model", "base", "adapter", "format", "weights", "kv", "engine", "url", "draft", "revision",
)  # fmt: skip


def resolve(
    world: World, flags: Mapping[str, Any], opens: Mapping[str, Any] | None = None
) -> Settings:
    """Options from flags, else variables, else the config file. A flag of None was not given.

    opens: what a session was opened with. For OF_MODEL it replaces variables and the file, unless a
    flag names another model.
    """
    given = {key: value for key, value in flags.items() if value not in (None, [], ())}
    layers: list[tuple[str, dict[str, Any]]] = [
        ("environment", _from_environment(world.env)),
        (str(world.config_file), _from_file(world.config_file)),
    ]
    if opens and not {"model", "url"} & set(given):
        general = [
            (origin, {key: layer[key] for key in layer if key not in OF_MODEL})
            for origin, layer in layers
        ]
        layers = [("session", {key: opens[key] for key in OF_MODEL if key in opens}), *general]
    layers.insert(0, ("flag", given))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            if key not in values:
                values[key] = _checked(key, value, origin)
                origins[key] = f"LLMCHAT_{key.upper()}" if origin == "environment" else origin
    if "model" not in values and (values.get("url") or values.get("engine") == "openai"):
        # The only model of the server.
        values["model"] = ""
    return Settings(
        Options(**values), {key: origins.get(key, "default") for key in Options.__struct_fields__}
    )


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: env[f"LLMCHAT_{key.upper()}"]
        for key in Options.__struct_fields__
        if env.get(f"LLMCHAT_{key.upper()}")
    }


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = read_toml(path)
    except FileNotFoundError:
        return {}
    return {key.replace("-", "_"): value for key, value in table.items()}


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Options)}


def _checked(key: str, value: Any, origin: str) -> Any:
    if key not in _TYPES:
        raise UsageError(f"{origin}: there is no option `{key}`", did_you_mean(key, tuple(_TYPES)))
    return check(value, _TYPES[key], _name_of(key, origin))


def checked_option(key: str, value: str) -> tuple[str, Any]:
    """The name and the checked value of an option. Raises UsageError with the allowed values."""
    known = key.replace("-", "_")
    if known == "schema":
        parse_structure(value)
    if known not in _TYPES:
        hint = did_you_mean(known, tuple(_TYPES)) or "`llmchat config show` lists the options"
        raise UsageError(f"there is no option `{key}`", hint)
    checked = check(value, _TYPES[known], key)
    if checked is None:
        raise UsageError(
            f"{key} must be {in_words(_TYPES[known])}, not `{value}`",
            f"`llmchat config unset {key}` removes it",
        )
    return known, checked


def _name_of(key: str, origin: str) -> str:
    """An option as the user wrote it: --top-p, LLMCHAT_TOP_P, or the file and its key."""
    written = {"flag": f"--{key.replace('_', '-')}", "environment": f"LLMCHAT_{key.upper()}"}
    return written.get(origin, f"{origin}: {key}")
