"""Work of a batch without a model."""

from typing import Any

from msgspec.structs import replace

from llmchat.batches import Work
from llmchat.engines import Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.models.open_model import OpenModel
from llmchat.presets import find, get_format


def scripted_work(**changes: Any) -> Work:
    """Answers that quote their questions."""
    preset = replace(find("alpaca-7b"), format=get_format("chatml"))
    opened = OpenModel(preset, ScriptedEngine(), {"model": "scripted"})
    return Work(opened, Sampling(temperature=0), **changes)
