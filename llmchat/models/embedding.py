"""Opens embedders and rerankers by the names of their presets."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmchat import plugins
from llmchat.engines.embedding_spec import EmbeddingSpec
from llmchat.errors import LlmchatError, ModelNotFound, UsageError
from llmchat.hub import find, touch_used
from llmchat.memory.types import Embedder, Reranker
from llmchat.models.locate import find_checkpoint
from llmchat.plugins import Offer
from llmchat.presets import Preset, is_preset
from llmchat.presets import find as find_preset
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.engines.transformers.embedding.embedder import TextEmbedder
    from llmchat.engines.transformers.embedding.reranker import CrossEncoder

# Without a name, the first of these that is on this machine.
DEFAULTS = ("multilingual-e5-small", "all-minilm-l6-v2")
# A reranker to suggest.
RERANKER = "ms-marco-minilm-l6-v2"


def open_embedder(world: World, name: str = "") -> Embedder:
    """The embedder of a preset or a plugin; "" for the default that is on this machine.

    Raises NotPulled if it is not on this machine, UsageError if it is not an embedder.
    """
    offer = plugins.find("embedder", name)
    if offer and not is_preset(name, world.own_presets):
        return _of_plugin(offer)
    return open_text_embedder(embedder_preset(world, name), world)


def _of_plugin(offer: Offer) -> Embedder:
    embedder: Embedder = plugins.make(offer)
    with plugins.faults(offer):
        name = embedder.name
    if name != offer.name:
        raise plugins.fault(offer, f"its embedder is called `{name}`")
    return embedder


def embedder_here(world: World) -> Embedder | None:
    """The default embedder, if it is on this machine and can be opened."""
    try:
        return open_embedder(world)
    except LlmchatError:
        return None


def embedder_preset(world: World, name: str = "") -> Preset:
    """The preset of an embedder, see `open_embedder`."""
    preset = find_preset(name or _default(world), world.own_presets)
    if preset.embedder or is_bare_embedder(preset, world):
        return preset
    raise UsageError(f"`{preset.name}` is not an embedder", f"use {' or '.join(DEFAULTS)}")


def is_bare_embedder(preset: Preset, world: World) -> bool:
    """Whether a repo or a folder without a preset is in the layout of sentence-transformers."""
    if preset.kind != "chat" or preset.engine != "transformers":
        return False
    try:
        return (find(preset.base, world).path / "modules.json").is_file()
    except ModelNotFound:
        return False


def embedding_spec(preset: Preset, folder: Path) -> EmbeddingSpec:
    """How the embedder in a folder is used: as its preset says, or as its files do."""
    from llmchat.engines.transformers.embedding.folder_spec import spec_of_folder

    return preset.embedder or spec_of_folder(folder)


def open_text_embedder(preset: Preset, world: World) -> "TextEmbedder":
    """The embedder of a preset that `embedder_preset` found."""
    from llmchat.engines.transformers.embedding.embedder import TextEmbedder

    folder = find_checkpoint(preset.base, preset, world).path
    embedder = TextEmbedder(folder, embedding_spec(preset, folder), preset.name)
    touch_used(preset.name, world)
    return embedder


def open_reranker(world: World, name: str) -> Reranker:
    """The cross-encoder of a preset, in memory. Raises as `open_embedder`."""
    return open_cross_encoder(reranker_preset(world, name), world)


def reranker_preset(world: World, name: str) -> Preset:
    """The preset of a reranker, see `open_reranker`."""
    preset = find_preset(name, world.own_presets)
    if preset.reranker is None:
        raise UsageError(f"`{preset.name}` is not a reranker", f"use {RERANKER}")
    return preset


def open_cross_encoder(preset: Preset, world: World) -> "CrossEncoder":
    """The cross-encoder of a preset that `reranker_preset` found."""
    from llmchat.engines.transformers.embedding.reranker import CrossEncoder

    assert preset.reranker is not None
    folder = find_checkpoint(preset.base, preset, world).path
    reranker = CrossEncoder(folder, preset.reranker, preset.name)
    touch_used(preset.name, world)
    return reranker


def _default(world: World) -> str:
    for name in DEFAULTS:
        try:
            find(find_preset(name, world.own_presets).base, world)
        except ModelNotFound:
            continue
        return name
    return DEFAULTS[-1]
