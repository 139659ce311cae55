"""Which encoder runs a checkpoint."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.embedding.bert import bert
from llmchat.engines.transformers.embedding.decoders import gemma3, qwen3
from llmchat.engines.transformers.embedding.encoder import Encoder
from llmchat.engines.transformers.embedding.nomic import nomic_bert
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.families.config_values import NoPlan


class AnyEncoder(Protocol):
    """width: numbers of a token's vector."""

    @property
    def width(self) -> int: ...

    def hidden(self, packed: Packed) -> Tensor:
        """The vector of each token, without fillers: [packed.size, width]."""
        ...


_ENCODERS: dict[str, Callable[[dict[str, Any], NamedTensors], Encoder]] = {
    "bert": bert,
    "roberta": bert,
    "xlm-roberta": bert,
    "nomic_bert": nomic_bert,
    "qwen3": qwen3,
    "gemma3_text": gemma3,
}


def open_encoder(folder: Path, device: str = "cpu") -> AnyEncoder:
    """The encoder of a checkpoint folder. device: `cpu`, `cuda` or `auto`.

    Where blocks of ours cannot express it, transformers' modules run it.
    """
    config = read_json(folder / "config.json")
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device
    kind = str(config.get("model_type"))
    if chosen in ("auto", "cpu") and kind in _ENCODERS:
        with suppress(NoPlan):
            return _ENCODERS[kind](config, NamedTensors(folder))
    from llmchat.engines.transformers.embedding.modules import ModulesEncoder

    return ModulesEncoder(folder, "cpu" if chosen == "auto" else chosen)
