"""What a config.json decides in a plan: defaults, layer patterns, and variants without a plan."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import LLAMA_LIKE, PROMPT, generate, greedy, open_engine, reference
from support.checkpoints import save_tiny
from support.family_engines import executor
from support.tiny_checkpoints import save_case
from transformers import OlmoConfig

from llmchat.engines.transformers.checkpoint_names import modern_config, modern_name
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.alibi import slopes
from llmchat.engines.transformers.families.blocks import Attention, Mlp, Rwkv7Time
from llmchat.engines.transformers.families.cache_shapes import KeyValues, cache_shapes
from llmchat.engines.transformers.families.check import bind, expected
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.families.views import Joined, View, ViewedTensors
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import IntegrityError, Mismatch

SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 4,
}  # fmt: skip
GPT = {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4}


def planned(kind: str, **values: Any) -> Plan:
    plan = plan_of(SIZES | {"model_type": kind} | values)
    assert plan
    return plan


def attentions(plan: Plan) -> list[Attention]:
    return [block for block in plan.blocks() if isinstance(block, Attention)]


def windows(plan: Plan) -> list[int]:
    return [block.window for block in attentions(plan)]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("mistral", {"num_attention_heads": 8}, [4096] * 6),
        ("mistral", {"sliding_window": None, "num_key_value_heads": 2}, [0] * 6),
        ("qwen2", {"num_attention_heads": 32, "sliding_window": 9}, [0] * 6),
        (
            "qwen3",
            {"num_attention_heads": 32, "use_sliding_window": True, "max_window_layers": 4},
            [0, 0, 0, 0, 4096, 4096],
        ),
        ("gemma", {"num_attention_heads": 16}, [0] * 6),
        ("gemma2", {}, [4096, 0] * 3),
        ("gemma3_text", {"sliding_window": 8}, [8, 8, 8, 8, 8, 0]),
        ("gemma3_text", {"sliding_window": 8, "sliding_window_pattern": 2}, [8, 0] * 3),
        ("gemma3n_text", {"num_kv_shared_layers": 0}, [512] * 4 + [0, 512]),
        ("gemma4_text", {"hidden_size_per_layer_input": 0}, [512] * 5 + [0]),
        ("olmo2", {}, [0] * 6),
        ("olmo3", {}, [4096, 4096, 4096, 0, 4096, 4096]),
        ("cohere2", {"sliding_window": 8}, [8, 8, 8, 0, 8, 8]),
        ("exaone4", {"num_key_value_heads": 4}, [4096, 4096, 4096, 0, 4096, 4096]),
        ("exaone4", {"num_key_value_heads": 4, "sliding_window": None}, [0] * 6),
        ("ministral", {"num_attention_heads": 8, "sliding_window": 8}, [8] * 6),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 8}, [0, 0, 0, 8, 0, 0]),
        ("phi3", {"sliding_window": 8}, [8] * 6),
    ],
)
def test_windows_follow_the_pattern_of_the_family(
    kind: str, values: dict[str, Any], expected: list[int]
) -> None:
    assert windows(planned(kind, **values)) == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("smollm3", {}, [True, True, True, False, True, True]),
        ("smollm3", {"no_rope_layers": [0, 1, 1, 1, 1, 0]}, [False, *[True] * 4, False]),
        ("cohere2", {}, [True, True, True, False, True, True]),
        ("exaone4", {"num_key_value_heads": 4}, [True, True, True, False, True, True]),
        ("exaone4", {"num_key_value_heads": 4, "sliding_window": None}, [True] * 6),
    ],
)
def test_some_layers_have_no_rotary_embedding(
    kind: str, values: dict[str, Any], expected: list[bool]
) -> None:
    plan = planned(kind, **values)
    assert [block.rotary is not None for block in attentions(plan)] == expected


def test_layers_of_gemma_3_and_olmo_3_have_two_rotary_embeddings() -> None:
    scaling = {"rope_type": "linear", "factor": 8.0}
    for kind in ("gemma3_text", "olmo3"):
        rotaries = [block.rotary for block in attentions(planned(kind, rope_scaling=scaling))]
        sliding, full = rotaries[0], rotaries[5 if kind == "gemma3_text" else 3]
        assert sliding and full
        assert sliding.frequencies[0] == 1 and full.frequencies[0] == 1 / 8
    assert sliding.frequencies[1] == pytest.approx(500000 ** (-2 / 16))


def test_a_missing_key_has_the_value_of_its_class() -> None:
    heads = attentions(planned("glm"))[0]
    assert (heads.queries.width, heads.keys.count) == (128, 2)
    assert heads.rotary and heads.rotary.width == 64 and heads.rotary.interleaved
    assert attentions(planned("ernie4_5"))[0].queries.width == 128
    growth = attentions(planned("ministral3", num_attention_heads=8))[0].position_scale
    assert growth and (growth.beta, growth.length) == (0.1, 16384)
    neox = attentions(planned("gpt_neox", num_attention_heads=2))[0]
    assert neox.rotary and neox.rotary.width == 8
    assert planned("granite").head.scale == 1.0
    assert planned("cohere").head.scale == 0.0625


@pytest.mark.parametrize("kind", ["gemma2", "gemma4_text", "cohere", "ernie4_5", "smollm3"])
def test_heads_are_tied_where_the_class_ties_them(kind: str) -> None:
    assert planned(kind).head.is_tied
    assert not planned(kind, tie_word_embeddings=False).head.is_tied


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("llama", {"hidden_act": "quick_gelu"}),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma2", {"layer_types": ["chunked_attention"] * 6}),
        ("falcon", {"alibi": True}),
        ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}),
        ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ("opt", {"do_layer_norm_before": False, "ffn_dim": 96}),
        ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 96}),
        ("gpt2", GPT | {"add_cross_attention": True}),
        ("gptj", GPT | {"rotary_dim": None}),
        ("gemma3n_text", {"altup_active_idx": 1}),
        ("gemma3n_text", {"altup_num_inputs": 9, "num_kv_shared_layers": 0}),
        ("gemma4_text", {"use_bidirectional_attention": "all"}),
        ("nemotron_h", {"hybrid_override_pattern": "ME", "moe_latent_size": 32}),
        ("nemotron_h", {"hybrid_override_pattern": "M*", "mamba_hidden_act": "gelu"}),
    ],
)
def test_variants_that_no_block_expresses_have_no_plan(kind: str, values: dict[str, Any]) -> None:
    assert plan_of(SIZES | {"model_type": kind} | values) is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}),
        ("gemma2", {"layer_types": ["full_attention"]}),
        ("gemma2", {"hidden_act": 3, "hidden_activation": 3}),
        ("gpt_neox", {"num_attention_heads": 5}),
        ("gemma3n_text", {"num_kv_shared_layers": 0, "intermediate_size": [96] * 5}),
        ("gemma3n_text", {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [1.0] * 6}),
        ("gemma4_text", {"num_kv_shared_layers": 6}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 3}),
        ("granite", {"logits_scaling": 0}),
        ("nemotron_h", {}),
        ("nemotron_h", {"hybrid_override_pattern": "M*X"}),
        ("nemotron_h", {"layers_block_type": ["mamba"] * 1001}),
    ],
)
def test_invalid_configs_are_refused(kind: str, values: dict[str, Any]) -> None:
    with pytest.raises(Mismatch):
        plan_of(SIZES | {"model_type": kind} | values)


def test_layers_of_gemma_4_that_share_keys_name_the_block_of_their_kind() -> None:
    kinds = ["sliding_attention", "full_attention"] * 3
    plan = planned("gemma4_text", layer_types=kinds, num_kv_shared_layers=3)
    shares = [block.shares for block in attentions(plan)]
    # Attention, MLP and the input of the layer: three blocks each.
    assert shares == [None, None, None, 3, 6, 3]
    assert [len(block.inputs) for block in attentions(plan)] == [3, 3, 3, 1, 1, 1]


def test_layers_of_gemma_3n_have_widths_and_cutoffs_of_their_own() -> None:
    widths, pattern = [96, 96, 96, 64, 64, 64], [0.95, 0.5, 0.0, 0.0, 0.0, 0.0]
    kinds = ["sliding_attention", "full_attention"] * 3
    plan = planned(
        "gemma3n_text", layer_types=kinds, num_kv_shared_layers=2, intermediate_size=widths,
        activation_sparsity_pattern=pattern,
    )  # fmt: skip
    mlps = [block for block in plan.blocks() if isinstance(block, Mlp)]
    assert [mlp.output.in_ for mlp in mlps] == widths
    assert [mlp.cutoff for mlp in mlps] == [pytest.approx(1.6448536), 0, None, None, None, None]
    # The streams are opened first, and a layer has six blocks, of which attention is the second.
    assert [block.shares for block in attentions(plan)] == [None] * 4 + [14, 20]
    rotaries = [block.rotary for block in attentions(plan)]
    assert rotaries[0] and rotaries[1] and len(rotaries[0].frequencies) == 128
    assert rotaries[0].frequencies[1] == pytest.approx(10000 ** (-1 / 128))
    assert rotaries[1].frequencies[1] == pytest.approx(1000000 ** (-1 / 128))


@pytest.mark.parametrize(
    "layers",
    [
        {"hybrid_override_pattern": "M-*E"},
        {"layers_block_type": ["mamba", "mlp", "attention", "moe"]},
        {"layers_block_type": ["linear_attention", "mlp", "full_attention", "moe"]},
    ],
)
def test_layers_of_nemotron_h_are_those_of_its_pattern_or_list(layers: dict[str, Any]) -> None:
    plan = planned("nemotron_h", num_key_value_heads=2, **layers)
    kinds = [type(block).__name__ for block in plan.blocks()]
    assert kinds == ["Mamba2", "Mlp", "Attention", "Experts"]
    assert attentions(plan)[0].rotary is None


def test_published_tables_of_kimi_linear_number_layers_from_one() -> None:
    heads = {"head_dim": 16, "num_heads": 2, "short_conv_kernel_size": 3}
    table = heads | {"full_attn_layers": [4, 6], "kda_layers": [1, 2, 3, 5]}
    experts = {"num_experts": 8, "num_experts_per_token": 2, "first_k_dense_replace": 1}
    plan = planned("kimi_linear", linear_attn_config=table, **experts)
    delta, latent, mlp, routed = "DeltaNet", "LatentAttention", "Mlp", "Experts"
    mixers = [delta, delta, delta, latent, delta, latent]
    kinds = [type(block).__name__ for block in plan.blocks()]
    assert kinds[::2] == mixers and kinds[1::2] == [mlp] + [routed] * 5
    assert plan_of(SIZES | {"model_type": "kimi_linear", "mla_use_nope": False}) is None


def test_names_in_files_of_kimi_linear_become_those_of_its_modules() -> None:
    config = {"model_type": "kimi_linear"}
    names = {
        "self_attn.f_a_proj.weight": "self_attn.forget_gate.f_a_proj.weight",
        "self_attn.A_log": "self_attn.forget_gate.A_log",
        "self_attn.g_a_proj.weight": "self_attn.g_a_proj.weight",
        "block_sparse_moe.experts.7.w3.weight": "mlp.experts.7.up_proj.weight",
    }
    for name, modern in names.items():
        assert modern_name(f"model.layers.2.{name}", config) == f"model.layers.2.{modern}"


def rwkv7(**values: Any) -> list[Rwkv7Time]:
    sizes = {"vocab_size": 320, "hidden_size": 128, "num_hidden_layers": 2, "model_type": "rwkv7"}
    plan = plan_of(sizes | values)
    assert plan
    return [block for block in plan.blocks() if isinstance(block, Rwkv7Time)]


def test_rwkv_7_derives_what_its_config_does_not_say() -> None:
    first, second = rwkv7()
    assert (first.heads, first.width, first.is_first, second.is_first) == (2, 64, True, False)
    # round(5 * sqrt(128) / 32) * 32 for gates; never less than 32.
    assert [low.out for low in second.low] == [32, 32, 64, 32]
    assert rwkv7(head_dim=None, num_heads=4)[0].width == 32
    assert rwkv7(decay_low_rank_dim=96)[0].low[0].out == 96
    sizes = {"model_type": "rwkv7", "vocab_size": 9, "hidden_size": 128, "num_hidden_layers": 2}
    for values in ({"attn": {"layers": [1]}}, {"value_dim": [128, 256]}, {"hidden_act": "gelu"}):
        assert plan_of(sizes | values) is None


def test_the_mixes_of_old_files_of_rwkv_7_are_rows_of_one_tensor() -> None:
    config = {"model_type": "rwkv7", "num_hidden_layers": 1}
    prefix, old = "model.layers.0.attn.", torch.arange(12.0).reshape(6, 2)
    tensors = viewed(config, MemoryTensors({f"{prefix}x_x": old}))
    rows = [tensors.get(f"{prefix}x_{name}").tolist() for name in "rwkvag"]
    assert rows == old.tolist()


@pytest.mark.slow
def test_rwkv_7_needs_no_class_of_transformers(tmp_path: Path) -> None:
    """In a process that has not registered the reference of the tests."""
    base = save_case("rwkv7", tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        "from llmchat.engines.transformers import TransformersEngine\n"
        "engine = TransformersEngine(Path(sys.argv[1]), (), weights='int8', device='cpu')\n"
        "print(engine.logits(list(range(5, 40))).argmax().item())"
    )
    command = [sys.executable, "-c", script, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    engine = open_engine(base, weights="int8")
    assert int(done.stdout) == int(engine.logits(list(range(5, 40))).argmax())


@pytest.mark.parametrize(
    ("outer", "text"),
    [
        ("gemma3", "gemma3_text"),
        ("gemma3n", "gemma3n_text"),
        ("gemma4", "gemma4_text"),
        ("mistral3", "mistral"),
        ("mistral3", "ministral3"),
    ],
)
def test_the_text_of_a_multimodal_model_has_the_plan_of_its_family(outer: str, text: str) -> None:
    inner = SIZES | {"num_attention_heads": 8, "model_type": text, "num_kv_shared_layers": 0}
    config = {"model_type": outer, "text_config": inner, "tie_word_embeddings": True}
    found, expected = plan_of(config), plan_of(inner)
    assert found and expected
    assert found.head == expected.head and len(found.blocks()) == len(expected.blocks())
    untied = plan_of(config | {"tie_word_embeddings": False})
    assert untied and not untied.head.is_tied


def test_latent_attention_caches_latent_numbers() -> None:
    plan = planned("deepseek_v3", qk_rope_head_dim=16, kv_lora_rank=32, first_k_dense_replace=6)
    kept = [shape for shape in cache_shapes(plan) if shape]
    assert kept == [KeyValues(heads=1, key_width=48, value_width=32)] * 6
    bias = {"model.layers.0.self_attn.kv_b_proj.bias": (4 * 256,)}
    with pytest.raises(IntegrityError, match=r"no block can use `.*kv_b_proj\.bias`"):
        bind(plan, expected(plan) | bias)


def test_families_saved_without_their_prefix_get_it() -> None:
    for kind in ("apertus", "olmo3", "glm4", "nemotron", "ministral3", "phi"):
        name = modern_name("layers.0.mlp.up_proj.weight", {"model_type": kind})
        assert name == "model.layers.0.mlp.up_proj.weight"
    assert modern_name("decoder.embed_tokens.weight", {"model_type": "opt"}) == (
        "model.decoder.embed_tokens.weight"
    )


def test_the_first_falcons_have_the_layouts_of_falcon() -> None:
    config = {
        "vocab_size": 320, "hidden_size": 64, "n_layer": 1, "n_head": 4, "n_head_kv": 2,
        "model_type": "RefinedWeb",
    }  # fmt: skip
    plan = plan_of(modern_config(config))
    assert plan
    heads = attentions(plan)[0]
    assert [heads.queries.begin(head) for head in range(4)] == [0, 16, 64, 80]
    assert [heads.keys.begin(head) for head in range(2)] == [32, 96]
    assert [heads.values.begin(head) for head in range(2)] == [48, 112]


def test_slopes_of_other_counts_lie_between_those_of_powers_of_two() -> None:
    torch.testing.assert_close(slopes(4), torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]))
    torch.testing.assert_close(slopes(6), torch.cat([slopes(4), torch.tensor([0.5, 0.125])]))


def test_norms_without_weights_give_the_tokens_of_transformers(tmp_path: Path) -> None:
    """OLMo 1, whose tiny checkpoint has no last norm that could scale its logits."""
    config = OlmoConfig(**LLAMA_LIKE, num_key_value_heads=2, clip_qkv=0.02)
    base = save_tiny(tmp_path, config, seed=3)
    engine = open_engine(base)
    ids = engine.encode(PROMPT)
    assert executor(engine) == "torch"
    assert greedy(engine, ids) == generate(reference(base), ids)


def test_views_join_pieces_and_turn_matrices_in_place() -> None:
    stored = {"a": torch.ones(2), "b": torch.zeros(2), "m": torch.arange(6.0).reshape(2, 3)}
    views = {"ab": Joined(("a", "b")), "m": View("m", is_transposed=True)}
    tensors = ViewedTensors(MemoryTensors(stored), views)
    assert tensors.shapes == {"ab": (4,), "m": (3, 2)}
    assert tensors.get("ab").tolist() == [1, 1, 0, 0]
    assert tensors.get("m").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert viewed({"model_type": "gpt2"}, tensors) is tensors
    with pytest.raises(IntegrityError, match="the tensor `b` is 3"):
        ViewedTensors(MemoryTensors(stored | {"b": torch.zeros(3)}), views)


def test_norms_of_heads_are_checked_before_they_are_read() -> None:
    plan = planned("cohere", use_qk_norm=True, num_key_value_heads=1)
    shapes = expected(plan)
    norms = {
        f"model.layers.{index}.self_attn.{name}.weight": shape
        for index in range(6)
        for name, shape in (("q_norm", (4, 16)), ("k_norm", (1, 16)))
    }
    bind(plan, shapes | norms)
    lacking = "model.layers.5.self_attn.q_norm.weight"
    with pytest.raises(IntegrityError, match=f"the weights have no `{lacking}`"):
        bind(plan, {name: shape for name, shape in (shapes | norms).items() if name != lacking})
    with pytest.raises(IntegrityError, match=r"is 17; config\.json requires 16"):
        bind(plan, shapes | norms | {lacking: (17,)})
