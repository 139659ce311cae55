"""What the tables of tiny configs are made of: sizes, windows, rotary scalings, experts."""

from typing import Any, NamedTuple

import pytest
import transformers

from support.chatglm_reference import ChatGlmConfig
from support.rwkv7_reference import Rwkv7Config

Sizes = dict[str, Any]


class Case(NamedTuple):
    """A config class of transformers and its arguments."""

    kind: str
    sizes: Sizes

    def config(self) -> Any:
        """Skips the test where this version of transformers is older than the class."""
        if not self.is_known:
            pytest.skip(f"transformers {transformers.__version__} has no {self.kind}")
        return self._class(**self.sizes)

    @property
    def is_known(self) -> bool:
        return self._class is not None

    @property
    def _class(self) -> Any:
        return _OWN.get(self.kind) or getattr(transformers, self.kind, None)


# Classes that transformers does not have.
_OWN = {"ChatGlmConfig": ChatGlmConfig, "Rwkv7Config": Rwkv7Config}


ENDS: Sizes = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 320}
UNGROUPED: Sizes = ENDS | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
DENSE: Sizes = UNGROUPED | {"num_key_value_heads": 2}
HEADS: Sizes = DENSE | {"head_dim": 16}
# Sizes that fill no vector: five heads of 16, one of them with keys, and an odd vocabulary.
ODD: Sizes = {
    "hidden_size": 80, "intermediate_size": 101, "num_attention_heads": 5,
    "num_key_value_heads": 1, "vocab_size": 333,
}  # fmt: skip
ODD_HEADS: Sizes = ODD | {"hidden_size": 72, "num_attention_heads": 4, "num_key_value_heads": 4}
TIED: Sizes = {"tie_word_embeddings": True}
GPT: Sizes = ENDS | {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 2048}
ODD_GPT: Sizes = {"n_embd": 80, "n_head": 5, "vocab_size": 333}


def layers(*types: str) -> Sizes:
    return {"num_hidden_layers": len(types), "layer_types": list(types)}


def rope(kind: str, **more: Any) -> Sizes:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0} | more}


FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
WINDOWS: Sizes = layers(SLIDING, FULL, SLIDING) | {"sliding_window": 8}
YARN: Sizes = rope(
    "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0
)
LLAMA3: Sizes = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
# Phi-3's: beyond 20 tokens every position is turned otherwise.
LONGROPE: Sizes = rope(
    "longrope",
    short_factor=[1.0 + 0.05 * index for index in range(8)],
    long_factor=[1.5 + 0.5 * index for index in range(8)],
) | {"original_max_position_embeddings": 20, "max_position_embeddings": 2048}
EXPERTS: Sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
ODD_EXPERTS: Sizes = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 36}
LOCAL_EXPERTS: Sizes = {"num_local_experts": 4, "num_experts_per_tok": 2}
# transformers multiplies grouped experts by rows of whole 16 bytes only.
FIVE_EXPERTS: Sizes = {
    "num_local_experts": 5, "num_experts_per_tok": 3, "intermediate_size": 100
}  # fmt: skip
SHARED: Sizes = {"shared_expert_intermediate_size": 40}
