"""Whether an engine can enforce the structure of an answer, found out before anything is loaded."""

from typing import TYPE_CHECKING

from llmchat.engines import Engine
from llmchat.engines.capabilities import ChecksStructure, unwrap
from llmchat.structure import Structure

if TYPE_CHECKING:
    from llmchat.models.external import Elsewhere


def check_structure(
    structure: Structure | None, engine: str, elsewhere: "Elsewhere | None" = None
) -> None:
    """Raise UsageError that names what the engine cannot enforce.

    engine: its name. elsewhere: the model's server, for the engine `openai`.
    """
    if structure is None:
        return
    if engine in ("transformers", "auto"):
        from llmchat.engines.guide import check

        check(structure)
    elif engine == "gguf":
        from llmchat.engines.gguf.structures import check_gguf

        check_gguf(structure)
    elif elsewhere is not None:
        from llmchat.engines.openai_api.structures import structure_fields

        structure_fields(structure, elsewhere.served.dialect, elsewhere.chat)


def check_for(structure: Structure | None, name: str, engine: Engine) -> None:
    """The same for an engine of this name that a chat uses already."""
    running = unwrap(engine)
    if structure is not None and isinstance(running, ChecksStructure):
        running.check_structure(structure)
    else:
        check_structure(structure, name)
