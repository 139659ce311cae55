"""Which encoder runs a checkpoint."""

from collections.abc import Callable
from typing import Any

from llmchat.engines.transformers.embedding.bert import bert
from llmchat.engines.transformers.embedding.encoder import Encoder
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.errors import Mismatch

_ENCODERS: dict[str, Callable[[dict[str, Any], NamedTensors], Encoder]] = {
    "bert": bert,
    "roberta": bert,
    "xlm-roberta": bert,
}


def open_encoder(config: dict[str, Any], tensors: NamedTensors) -> Encoder:
    """The encoder of a config.json. Raises Mismatch for an architecture without one."""
    kind = str(config.get("model_type"))
    if kind not in _ENCODERS:
        known = ", ".join(_ENCODERS)
        raise Mismatch(f"no encoder for `{kind}` models", f"there are encoders for {known}")
    return _ENCODERS[kind](config, tensors)
