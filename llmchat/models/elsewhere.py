"""The GGUF models that other programs have on this machine, for `llmchat ls --elsewhere`."""

from msgspec import Struct

from llmchat import hub
from llmchat.errors import LlmchatError
from llmchat.hub import StoredModel
from llmchat.models.gguf_summary import summary_of
from llmchat.settings import World


class ElsewhereModel(Struct, frozen=True):
    """A model of `llmchat ls --elsewhere --json`."""

    name: str
    """The model as a MODEL argument."""
    size: int
    """Bytes of its files."""
    architecture: str
    """Its architecture, as llama.cpp calls it; empty for a damaged file."""
    quantisation: str
    """Its kind of weights, such as `Q4_K_M`; empty for a damaged file."""
    runs: str
    """`yes`: in llmchat's own engine; `llama.cpp`: in llama.cpp; `no`."""
    note: str
    """Why it does not run; empty if it does."""
    path: str
    """Its file, or the first of its parts."""


def list_elsewhere(world: World) -> list[ElsewhereModel]:
    """The models of ollama, of LM Studio, and of other tools in the Hub's cache."""
    stored = [*hub.list_stored(world), *hub.list_cached(world)]
    return [_described(model, world) for model in stored]


def _described(model: StoredModel, world: World) -> ElsewhereModel:
    try:
        found = summary_of(model.file, world)
    except (LlmchatError, OSError) as error:
        return ElsewhereModel(
            model.source.name, model.size, "", "", "no", str(error), str(model.file)
        )
    return ElsewhereModel(
        model.source.name,
        model.size,
        found.architecture,
        found.quantisation,
        found.runs,
        found.problem,
        str(model.file),
    )
