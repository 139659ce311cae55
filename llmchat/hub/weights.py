"""The weights of a checkpoint as its headers and config.json describe them."""

from typing import Any

from msgspec import Struct

from llmchat.errors import LlmchatError
from llmchat.hub.headers import Shapes
from llmchat.quantisation import Facts, logical_shapes, stored_weights
from llmchat.quantisation.kinds import WeightKind, kinds_of, name_of


class Quantised(Struct, frozen=True):
    """How weights are stored. kind: of most quantised weights, "" for 16 bits. stored: name → bytes
    of each weight that runs with the numbers of its file. kinds: all tensors by kind of numbers.
    refused: error and hint for weights that llmchat cannot run.
    """

    kind: str = ""
    stored: dict[str, int] = {}
    kinds: tuple[WeightKind, ...] = ()
    refused: tuple[str, str] = ("", "")


def weight_facts(config: dict[str, Any], facts: Facts) -> tuple[Shapes, Quantised]:
    """The shapes of the model's tensors, and how safetensors files store them.

    Weights that cannot be run have the shapes of their parts.
    """
    try:
        stored = stored_weights(config, facts)
    except LlmchatError as error:
        shapes = {name: fact.shape for name, fact in facts.items()}
        refused = error.message, error.hint
        return shapes, Quantised(kinds=kinds_of(facts, {}), refused=refused)
    kinds = kinds_of(facts, stored)
    sizes = {name: weight.size for name, weight in stored.items() if weight.is_grid}
    kind = name_of(kinds, (weight.kind for weight in stored.values()))
    return logical_shapes(facts, stored), Quantised(kind, sizes, kinds)


def kind_in_words(weights: str, quantised: str) -> str:
    """Weights that keep their numbers keep their kind, unless 16 bits or more are asked for."""
    return quantised if quantised and weights in ("int8", "int4") else weights
