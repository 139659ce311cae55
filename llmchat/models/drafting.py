"""The draft model of a preset: a second, smaller model that is loaded with it."""

from msgspec.structs import replace

from llmchat.errors import Mismatch
from llmchat.models.locate import Model, locate
from llmchat.presets import find


def draft_of(model: Model) -> Model | None:
    """The model that drafts for another one; None without one.

    Raises ModelNotFound if it is not pulled, Mismatch if another engine than ours runs it.
    """
    name, world = model.preset.draft, model.world
    if not name or world is None:
        return None
    preset = find(name, world.own_presets)
    if preset.engine != "transformers":
        raise Mismatch(
            f"{preset.name} cannot draft: the engine `{preset.engine}` runs it",
            "a draft model runs in the engine transformers",
        )
    # It answers nobody, so that it needs no prompt format of its own.
    return locate(replace(preset, draft="", format=model.preset.format), world)
