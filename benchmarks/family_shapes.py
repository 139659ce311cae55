"""The shapes that benchmarks/families.py measures: sizes of models that people run, as data.

Speed depends on sizes and not on the values of weights. `layers` are those of the model, or fewer
so that a model has 1 to 1.7 billion parameters. The scale `small` keeps every width, has fewer
layers and a vocabulary of 32,000: about 0.3 billion parameters, 0.8 to 1.3 with experts. It is for
a quick look: in prefill llama.cpp skips the last MLP for all tokens but the last, which counts for
more the fewer layers there are.
"""

from dataclasses import dataclass, field
from typing import Any

SCALES = ("small", "full")
SMALL_VOCABULARY = 32_000
# Beginning, end and padding; the tokenizer of random_checkpoint.py has them.
SPECIALS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@dataclass(frozen=True)
class Shape:
    """One model. like: whose sizes these are; small: number of layers of the small scale.

    settings: of the config class of `model_type` in transformers. attention: the layers of
    Granite 4 that have attention instead of Mamba-2. int8: the checkpoint is written as int8 in
    bitsandbytes' layout, because 16 bits and a copy would not fit on the disk.
    """

    like: str
    model_type: str
    layers: int
    small: int
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "dense"
    attention: tuple[int, ...] = ()
    int8: bool = False

    def config(self, scale: str) -> Any:
        """The config of transformers. scale: one of SCALES."""
        from transformers import AutoConfig

        layers = self.layers if scale == "full" else self.small
        changes: dict[str, Any] = SPECIALS | self.settings | {"num_hidden_layers": layers}
        if scale == "small":
            changes["vocab_size"] = SMALL_VOCABULARY
        if self.attention:
            changes["layer_types"] = [
                "full_attention" if index in self.attention else "linear_attention"
                for index in range(layers)
            ]
        changes.setdefault("max_position_embeddings", 8192)
        return AutoConfig.for_model(self.model_type, **changes)


def _sizes(hidden: int, inner: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


def _tied(sizes: dict[str, Any], tied: bool = True, **more: Any) -> dict[str, Any]:
    return sizes | {"tie_word_embeddings": tied} | more


_MULTIPLIERS = {
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
}
_MAMBA = {"mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_d_head": 64, "mamba_d_state": 128}
_EXPERTS = {
    "head_dim": 128,
    "num_experts": 64,
    "num_experts_per_tok": 10,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
}

SHAPES: dict[str, Shape] = {
    "llama": Shape(
        "TinyLlama 1.1B", "llama", 22, 5, _tied(_sizes(2048, 5632, 32, 4, 49152), False)
    ),
    "mistral": Shape(
        "Mistral 7B v0.1 (window 4,096) at half its width, 22 layers", "mistral", 22, 5,
        _tied(_sizes(2048, 7168, 16, 4, 32000), False, head_dim=128, sliding_window=4096),
    ),
    "qwen2": Shape(
        "Qwen2.5 1.5B, 20 of 28 layers", "qwen2", 20, 5,
        _tied(_sizes(1536, 8960, 12, 2, 151936), use_sliding_window=False),
    ),
    "qwen3": Shape(
        "Qwen3 1.7B, 18 of 28 layers", "qwen3", 18, 5,
        _tied(_sizes(2048, 6144, 16, 8, 151936), head_dim=128),
    ),
    "gemma3": Shape(
        "Gemma 3 1B", "gemma3_text", 26, 12,
        _tied(_sizes(1152, 6912, 4, 1, 262144), head_dim=256, sliding_window=512,
              query_pre_attn_scalar=256),
    ),
    "phi3": Shape(
        "Phi-3-mini, 10 of 32 layers", "phi3", 10, 2,
        _tied(_sizes(3072, 8192, 32, 32, 32064), False, max_position_embeddings=4096,
              original_max_position_embeddings=4096, sliding_window=2047),
    ),
    "olmo2": Shape("OLMo 2 1B", "olmo2", 16, 4, _tied(_sizes(2048, 8192, 16, 16, 100352), False)),
    "glm4": Shape(
        "GLM-4 9B at half its width, 18 of 40 layers", "glm4", 18, 5,
        _tied(_sizes(2048, 6848, 16, 2, 151552), False, head_dim=128, attention_bias=True),
    ),
    "granite": Shape(
        "Granite 3 2B, 18 of 40 layers", "granite", 18, 4,
        _tied(_sizes(2048, 8192, 32, 8, 49155), **_MULTIPLIERS),
    ),
    "smollm3": Shape(
        "SmolLM3 3B, 13 of 36 layers", "smollm3", 13, 4,
        _tied(_sizes(2048, 11008, 16, 4, 128256)),
    ),
    "stablelm": Shape(
        "StableLM 2 1.6B", "stablelm", 24, 5,
        _tied(_sizes(2048, 5632, 32, 32, 100352), False, use_qkv_bias=True,
              rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                               "partial_rotary_factor": 0.25}),
    ),
    "gpt-neox": Shape(
        "Pythia 1.4B", "gpt_neox", 24, 5,
        {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16,
         "vocab_size": 50304, "tie_word_embeddings": False, "use_parallel_residual": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                             "partial_rotary_factor": 0.25}},
    ),
    "moe": Shape(
        "0.6B active of 3B: 10 of 64 experts", "qwen3_moe", 13, 3,
        _tied(_sizes(1536, 4608, 12, 4, 32000), False, moe_intermediate_size=768, **_EXPERTS),
        "experts",
    ),
    "moe-16b": Shape(
        "3B active of 16B: 10 of 64 experts", "qwen3_moe", 27, 2,
        _tied(_sizes(2048, 6144, 16, 4, 151936), False, moe_intermediate_size=1408, **_EXPERTS),
        "experts", int8=True,
    ),
    "qwen3.5": Shape(
        "Qwen3.5 0.8B (Gated DeltaNet)", "qwen3_5_text", 24, 12,
        _tied(_sizes(1024, 3584, 8, 2, 248320), head_dim=256, linear_num_key_heads=16,
              linear_num_value_heads=16), "hybrid",
    ),
    "lfm2": Shape(
        "LFM2 1.2B (short convolutions)", "lfm2", 16, 4,
        _tied(_sizes(2048, 12288, 32, 8, 65536), full_attn_idxs=[2, 5, 8, 10, 12, 14]), "hybrid",
    ),
    "falcon-h1": Shape(
        "Falcon-H1 0.5B (Mamba-2 beside attention)", "falcon_h1", 36, 16,
        _tied(_sizes(1024, 2048, 8, 2, 32784), False, head_dim=64, mamba_d_ssm=1536,
              mamba_n_heads=24, **_MAMBA), "hybrid",
    ),
    "granite4": Shape(
        "Granite 4 H 1B (Mamba-2)", "granitemoehybrid", 40, 12,
        _tied(_sizes(1536, 4096, 12, 4, 100352), mamba_expand=2, mamba_n_heads=48,
              num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=4096,
              **_MAMBA, **_MULTIPLIERS), "hybrid", (5, 15, 25, 35),
    ),
}  # fmt: skip


def chosen(names: list[str]) -> list[str]:
    """The named shapes, or all but the one that needs 16 GB; the reference is always first."""
    wanted = names or [name for name in SHAPES if name != "moe-16b"]
    return ["llama", *(name for name in SHAPES if name in wanted and name != "llama")]
