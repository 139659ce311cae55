"""Models and prompt formats as data, one TOML file each.

`find` resolves a MODEL argument: a preset (the user's own first), a Hub repo `org/name`, a local
folder or a `.gguf` file. Names must match exactly; nothing is guessed from a path.
"""

from llmchat.presets.check import Mistake, check
from llmchat.presets.estimate import estimate_fit, matches
from llmchat.presets.load import broken, find, formats, get_format, is_preset, names
from llmchat.presets.override import (
    adjust,
    amend,
    preset_for,
    setting_names,
    setting_type,
    settings_of,
)
from llmchat.presets.reopen import reopen_options, without_credentials
from llmchat.presets.types import ContextPolicy, FileFact, Preset, Source

__all__ = [
    "ContextPolicy",
    "FileFact",
    "Mistake",
    "Preset",
    "Source",
    "adjust",
    "amend",
    "broken",
    "check",
    "estimate_fit",
    "find",
    "formats",
    "get_format",
    "is_preset",
    "matches",
    "names",
    "preset_for",
    "reopen_options",
    "setting_names",
    "setting_type",
    "settings_of",
    "without_credentials",
]
