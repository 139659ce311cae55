"""The folders of presets and prompt formats that plugins bring.

A plugin that does not work is left out, so that it breaks no other model; `faults` has its line.
"""

from functools import lru_cache
from pathlib import Path

from llmchat import plugins
from llmchat.plugins import Offer, PluginError


def folders() -> tuple[Path, ...]:
    """A folder of each plugin that brings presets, in the order of their names."""
    return tuple(one for one in map(_folder, plugins.offers("presets")) if isinstance(one, Path))


def faults() -> list[PluginError]:
    """Why the others have none."""
    found = map(_folder, plugins.offers("presets"))
    return [one for one in found if isinstance(one, PluginError)]


@lru_cache(maxsize=64)
def _folder(offer: Offer) -> Path | PluginError:
    try:
        folder = Path(plugins.make(offer))
    except PluginError as error:
        return error
    except TypeError:
        return plugins.fault(offer, "its hook returned no path")
    return folder if folder.is_dir() else plugins.fault(offer, f"there is no folder {folder}")
