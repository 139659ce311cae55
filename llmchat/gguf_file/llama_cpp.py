"""Which of the GGUF files that llmchat writes llama.cpp refuses, or computes differently.

The rules are those of llama.cpp's src/models/*.cpp of August 2026.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from llmchat.gguf_file.architectures import Facts
from llmchat.gguf_file.architectures.row import Shapes

_LLAMA = "attn_output ffn_gate ffn_down ffn_up"
_GPT = "attn_norm attn_qkv attn_output ffn_norm ffn_down ffn_up output_norm"
_SSM = "ssm_conv1d ssm_dt"
_QKV = ("attn_q", "attn_k", "attn_v", "attn_qkv")
_FALSE = (None, 0, False)


class _Biases(NamedTuple):
    """Modules that can have a bias, besides queries, keys and values, and those that have one."""

    optional: str = ""
    required: str = ""
    has_qkv: bool = True


_OF_LLAMA, _OF_GPT = _Biases(_LLAMA), _Biases(required=_GPT, has_qkv=False)
_BIASES = {
    "apertus": _Biases("attn_output"),
    "bloom": _OF_GPT._replace(required=f"{_GPT} token_embd_norm"),
    "deepseek2": _Biases("exp_probs_b", has_qkv=False),
    "ernie4_5": _Biases("attn_output"),
    "ernie4_5-moe": _Biases("attn_output exp_probs_b"),
    "falcon": _Biases("attn_norm_2", "attn_norm output_norm", has_qkv=False),
    "falcon-h1": _Biases(f"{_LLAMA} {_SSM}"),
    "gemma4": _Biases(has_qkv=False),
    "glm4moe": _Biases("exp_probs_b"),
    "gpt-oss": _Biases(required="attn_output ffn_gate_inp ffn_gate_exps ffn_down_exps ffn_up_exps"),
    "gpt2": _OF_GPT,
    "gptneox": _OF_GPT,
    "granite": _OF_LLAMA,
    "granitehybrid": _Biases(f"{_LLAMA} {_SSM}"),
    "granitemoe": _OF_LLAMA,
    "kimi-linear": _Biases("ssm_dt exp_probs_b"),
    "lfm2moe": _Biases("exp_probs_b"),
    "llama": _OF_LLAMA,
    "mistral3": _OF_LLAMA,
    "mpt": _Biases(_GPT, has_qkv=False),
    "nemotron": _Biases("attn_output ffn_down ffn_up", "attn_norm ffn_norm output_norm"),
    "nemotron_h": _Biases(f"attn_output ffn_down ffn_up {_SSM}"),
    "nemotron_h_moe": _Biases(f"attn_output ffn_down ffn_up exp_probs_b {_SSM}"),
    "phi2": _Biases(required="attn_norm attn_output ffn_down ffn_up output_norm output"),
    "qwen2": _Biases("output"),
    "qwen35": _Biases("ssm_dt"),
    "qwen35moe": _Biases("ssm_dt"),
    "qwen3next": _Biases("ssm_dt"),
    "stablelm": _Biases("ffn_norm", "attn_norm output_norm"),
    "starcoder": _OF_GPT,
    "starcoder2": _Biases(required="attn_norm attn_output ffn_norm ffn_down ffn_up output_norm"),
}
# Architectures whose output head is never the embedding.
_UNTIED = (
    "apertus", "gpt-oss", "gptneox", "kimi-linear", "nemotron", "olmo2", "olmoe", "phi2",
    "qwen2moe", "stablelm",
)  # fmt: skip
# Architectures whose heads together are as wide as the hidden state.
_SQUARE = (
    "bloom", "chatglm", "command-r", "exaone4", "falcon", "gpt2", "gptneox", "lfm2", "lfm2moe",
    "mpt", "nemotron", "olmo", "olmo2", "olmoe", "phi2", "qwen2", "qwen2moe", "stablelm",
    "starcoder", "starcoder2",
)  # fmt: skip


def refusal(arch: str, facts: Facts, shapes: Shapes) -> str:
    """Why llama.cpp does not load a file, as the end of a sentence about its models of this
    architecture: `have no …`. Empty if it does.

    facts: all of the header, with their whole names. shapes: of the tensors, by name.
    """
    own = {name.removeprefix(f"{arch}."): value for name, value in facts.items()}
    found = (_of_biases(arch, shapes), _of_head(arch, shapes), _of_width(arch, shapes))
    return next(filter(None, (*found, *_refused(arch, own, shapes))), "")


def deviation(arch: str, facts: Facts, shapes: Shapes) -> str:
    """How its models compute differently from llmchat, in the same form. Empty if they do not."""
    own = {name.removeprefix(f"{arch}."): value for name, value in facts.items()}
    rules = (rule for name, rule in _DEVIATIONS if name == arch)
    return next(filter(None, (rule(own, shapes) for rule in rules)), "")


def _of_biases(arch: str, shapes: Shapes) -> str:
    known = _BIASES.get(arch, _Biases())
    needed = known.required.split()
    allowed = {*known.optional.split(), *needed, *(_QKV if known.has_qkv else ())}
    present = {name: _module(name) for name in shapes if name.endswith(".bias")}
    if extra := next((name for name, module in present.items() if module not in allowed), ""):
        return f"have no `{extra}`"
    modules = {*present.values()}
    missing = next((module for module in needed if module not in modules), "")
    return f"must have a bias in `{missing}`" if missing else ""


def _module(name: str) -> str:
    """`ffn_down` of `blk.0.ffn_down.bias`."""
    return name.split(".")[-2]


def _of_head(arch: str, shapes: Shapes) -> str:
    is_tied = "output.weight" not in shapes
    return "must have an output head besides the embedding" if is_tied and arch in _UNTIED else ""


def _of_width(arch: str, shapes: Shapes) -> str:
    found = (shape for name, shape in shapes.items() if name.endswith("attn_output.weight"))
    shape = next(found, (1, 1))
    if arch in _SQUARE and shape[0] != shape[1]:
        return f"must have heads that are {shape[0]} numbers wide together, not {shape[1]}"
    return ""


def _refused(arch: str, own: Facts, shapes: Shapes) -> Iterator[str]:
    for name, rule in _REFUSALS:
        if arch == name:
            yield rule(own, shapes)


def _has(shapes: Shapes, module: str) -> bool:
    return any(f".{module}." in name for name in shapes)


def _command_r(own: Facts, shapes: Shapes) -> str:
    is_deep = own["block_count"] >= 64
    return "" if _has(shapes, "attn_q_norm") == is_deep else "have norms of heads from 64 layers on"


def _deepseek2(own: Facts, shapes: Shapes) -> str:
    """llama.cpp knows models whose queries have full rank by their depth and vocabulary."""
    sizes = own["block_count"], own.get("vocab_size")
    is_lite = sizes[0] in (26, 27) or sizes == (48, 128256)
    if is_lite == _has(shapes, "attn_q"):
        return ""
    return "have queries of full rank only with 26 or 27 layers, and always then"


def _ernie_moe(own: Facts, shapes: Shapes) -> str:
    is_spread = own.get("interleave_moe_layer_step", 1) != 1
    return "must have experts in all layers behind the dense ones" if is_spread else ""


def _gemma3n(own: Facts, shapes: Shapes) -> str:
    wanted = {"altup.num_inputs": 4, "embedding_length_per_layer_input": 256}
    for name, value in wanted.items():
        if own.get(name) != value:
            return f"must have `{name}` = {value}, not {own.get(name)}"
    rank = shapes.get("blk.0.laurel_l.weight", (64,))[0]
    return "" if rank == 64 else f"must have a LAuReL rank of 64, not {rank}"


def _granite_hybrid(own: Facts, shapes: Shapes) -> str:
    """An assertion, which ends the process."""
    inner, wanted = own.get("ssm.inner_size"), 2 * own["embedding_length"]
    return "" if inner == wanted else f"must have a Mamba layer {wanted} numbers wide, not {inner}"


def _kimi(own: Facts, shapes: Shapes) -> str:
    return "must have queries of full rank" if _has(shapes, "attn_q_a") else ""


def _nemotron_h(own: Facts, shapes: Shapes) -> str:
    is_mixed = _has(shapes, "ffn_gate_inp") and _has(shapes, "ffn_down")
    return "have dense layers or layers with experts, not both" if is_mixed else ""


def _delta_net(own: Facts, shapes: Shapes) -> str:
    """Keys and values of linear attention have one width."""
    width, count = own.get("ssm.state_size", 0), own.get("ssm.time_step_rank", 0)
    if own.get("ssm.inner_size") == width * count:
        return ""
    return "must have keys and values of one width in linear attention"


def _exaone4(own: Facts, shapes: Shapes) -> str:
    if own.get("attention.sliding_window") in _FALSE or own["block_count"] == 64:
        return ""
    return "use a sliding window only with 64 layers"


def _phi3_window(own: Facts, shapes: Shapes) -> str:
    is_full = own.get("attention.sliding_window") in _FALSE
    return "" if is_full else "have no sliding window: every token sees all of the text"


def _long_rope(own: Facts, shapes: Shapes) -> str:
    if "rope_factors_long.weight" not in shapes:
        return ""
    return "choose the rotary factors by the context size, not by the length of the text"


def _groups(own: Facts, shapes: Shapes) -> str:
    """DeepSeek-V2, which has no correction biases, scores a group by its best expert."""
    is_grouped = (own.get("expert_group_count") or 0) > 1 and not _has(shapes, "exp_probs_b")
    return "score a group of experts by its best two, not its best one" if is_grouped else ""


def _shared_keys(own: Facts, shapes: Shapes) -> str:
    first = own["block_count"] - (own.get("attention.shared_kv_layers") or 0)
    return "" if first == 20 else f"share keys and values behind 20 layers, not behind {first}"


Rule = Callable[[Facts, Shapes], str]
_REFUSALS: tuple[tuple[str, Rule], ...] = (
    ("command-r", _command_r),
    ("deepseek2", _deepseek2),
    ("ernie4_5-moe", _ernie_moe),
    ("gemma3n", _gemma3n),
    ("granitehybrid", _granite_hybrid),
    ("kimi-linear", _kimi),
    ("nemotron_h_moe", _nemotron_h),
    ("qwen35", _delta_net),
    ("qwen35moe", _delta_net),
    ("qwen3next", _delta_net),
)
_DEVIATIONS: tuple[tuple[str, Rule], ...] = (
    ("deepseek2", _groups),
    ("exaone4", _exaone4),
    ("gemma3n", _shared_keys),
    ("phi3", _phi3_window),
    ("phi3", _long_rope),
)
