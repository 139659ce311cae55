"""Names of tensors in a checkpoint, for those of llama.cpp that most models have.

What is not known keeps its name. The engine knows the names of each family from its plan; these
are for comparing an adapter with a base, and for estimates.
"""

import re

_WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def checkpoint_name(name: str) -> str:
    """`blk.0.attn_q.weight` → `model.layers.0.self_attn.q_proj.weight`."""
    module, _, suffix = name.rpartition(".")
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{suffix}"
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in _IN_LAYERS:
        return name
    return f"model.layers.{match[1]}.{_IN_LAYERS[match[2]]}.{match[3]}"
