"""What is known about each model, as data: one TOML file a model, one a prompt format. Chosen by exact name, never guessed from a path.

`find` answers a MODEL argument: a preset (the user's own first), a Hub repo `org/name`, a local folder or a `.gguf` file.
"""

from llmchat.presets.load import find, formats, get_format, names
from llmchat.presets.override import amend, choose
from llmchat.presets.types import ContextPolicy, FileFact, Preset, Source

__all__ = ["ContextPolicy", "FileFact", "Preset", "Source", "amend", "choose", "find", "formats", "get_format", "names"]
