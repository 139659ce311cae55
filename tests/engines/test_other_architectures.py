"""Architectures whose past is more than keys and values, or whose layers are more than linear:
transformers' tokens, cached and cold.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.architectures import (
    GROUPED,
    LLAMA_LIKE,
    PROMPT,
    QUESTION,
    answer,
    generate,
    greedy,
    open_engine,
    reference,
)
from support.checkpoints import save_adapter, save_tiny, tiny_config

from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.modules import causal, self_test
from llmchat.engines.transformers.modules.causal import ModulesForward
from llmchat.engines.transformers.modules.quantisable import quantisable
from llmchat.engines.transformers.modules.state_copies import Copies
from llmchat.errors import Mismatch
from llmchat.prompt import Prompt

MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
MIXED = ["linear_attention", "full_attention"]
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GATED = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAMBA = LLAMA_LIKE | {"state_size": 16, "time_step_rank": 4}
ZAMBA = LLAMA_LIKE | {
    "num_key_value_heads": 4, "num_hidden_layers": 5, "attention_hidden_size": 128,
    "attention_head_dim": 32, "mamba_d_state": 16, "mamba_dt_rank": 4,
    "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid"],
}  # fmt: skip
# Config, sizes, what keeps its 16 bits (the end of its path).
TABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba": ("MambaConfig", MAMBA, "dt_proj"),
    "falcon-mamba": ("FalconMambaConfig", MAMBA, "dt_proj"),
    "mamba2": ("Mamba2Config", LLAMA_LIKE | {"state_size": 16, "num_heads": 8, "head_dim": 16,
        "n_groups": 2, "chunk_size": 8}, "out_proj"),
    "bamba": ("BambaConfig", GROUPED | MAMBA2 | {"attn_layer_indices": [1]}, "out_proj"),
    "jamba": (
        "JambaConfig",
        GROUPED | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
            "expert_layer_period": 2, "mamba_d_state": 16, "mamba_dt_rank": 4},
        "dt_proj",
    ),
    "zamba": ("ZambaConfig", ZAMBA | {"n_mamba_heads": 2}, ""),
    "zamba2": ("Zamba2Config", ZAMBA | {"n_mamba_heads": 8, "mamba_headdim": 16, "mamba_ngroups": 1,
        "chunk_size": 8, "num_mem_blocks": 1}, ""),
    "falcon-h1": ("FalconH1Config", GROUPED | MAMBA2 | {"mamba_d_ssm": 128}, ""),
    "granite-moe-hybrid": (
        "GraniteMoeHybridConfig",
        GROUPED | MAMBA2 | EXPERTS | {"layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 64},
        "out_proj",
    ),
    "lfm2": ("Lfm2Config", GROUPED | {"layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False}, ""),
    "qwen3-next": (
        "Qwen3NextConfig",
        GROUPED | GATED | {"layer_types": MIXED, "head_dim": 16, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64},
        "",
    ),
    "qwen3.5": ("Qwen3_5TextConfig", GROUPED | GATED | {"layer_types": MIXED, "head_dim": 16}, ""),
    "minimax": ("MiniMaxConfig", GROUPED | EXPERTS | {"layer_types": MIXED, "head_dim": 16,
        "block_size": 8, "sliding_window": None}, ""),
    "llama4": (
        "Llama4TextConfig",
        GROUPED | {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 1, "intermediate_size_mlp": 96,
            "attention_chunk_size": 16},
        "router",
    ),
    "deepseek-v3.2": (
        "DeepseekV32Config",
        LLAMA_LIKE | {"num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "n_group": 1, "topk_group": 1, "moe_intermediate_size": 64, "first_k_dense_replace": 1,
            "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
            "v_head_dim": 16, "index_topk": 64, "index_head_dim": 16, "index_n_heads": 2},
        "",
    ),
    "phimoe": ("PhimoeConfig", GROUPED | EXPERTS, "router"),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64},
        "",
    ),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=TABLE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, sizes, _ = TABLE[name]
    return save_tiny(tmp_path_factory.mktemp("base"), getattr(transformers, kind)(**sizes), seed=3)


@pytest.fixture(scope="module")
def engine(base: Path) -> TransformersEngine:
    return open_engine(base)


def test_greedy_tokens_are_those_of_transformers(engine: TransformersEngine, base: Path) -> None:
    ids = engine.encode(PROMPT)
    expected = generate(reference(base), ids)
    assert greedy(engine, ids) == expected
    assert len(set(expected)) > 2, "a model that repeats itself would prove little"


def test_regenerating_undoing_and_going_on_read_only_what_is_new(
    name: str, engine: TransformersEngine
) -> None:
    engine.clear_cache()
    said, first = answer(engine, PROMPT)
    again, repeated = answer(engine, PROMPT)
    assert again == said and repeated.cached_tokens == first.prompt_tokens - 1
    second = Prompt(f"{QUESTION}{said} and the fox", ())
    replied, following = answer(engine, second)
    assert following.cached_tokens >= first.prompt_tokens - 1
    undone = Prompt(f"{QUESTION}{said} question", ())
    other, after_undo = answer(engine, undone)
    assert after_undo.cached_tokens >= following.cached_tokens, (
        "what was said before the question that was taken back"
    )
    for prompt, warm in ((PROMPT, said), (second, replied), (undone, other)):
        engine.clear_cache()
        assert answer(engine, prompt)[0] == warm


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_weights_answer(
    weights: Any, name: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "_LIMIT_16", 4.0)  # a random model exaggerates every rounding
    engine = open_engine(base, weights=weights)
    assert answer(engine, PROMPT)[1].reply_tokens > 0
    if not isinstance(engine._forward, ModulesForward):
        return
    plain = {
        path.rpartition(".")[2]
        for path, module in engine._forward._model.named_modules()
        if type(module) is torch.nn.Linear
    }  # type: ignore[attr-defined]
    kept = TABLE[name][2]
    assert (
        not kept
        or kept in plain
        or any(kept in path for path, _ in engine._forward._model.named_parameters())
    )  # type: ignore[attr-defined]


def test_dynamic_frequencies_are_those_of_the_whole_text(tmp_path: Path) -> None:
    """Beyond the trained window every length turns all positions otherwise; one text must not
    change another's.
    """
    scaling = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    base = save_tiny(
        tmp_path,
        transformers.LlamaConfig(
            **GROUPED | {"max_position_embeddings": 20, "rope_parameters": scaling}
        ),
        seed=3,
    )
    engine = open_engine(base)
    assert engine.context == 80
    ids = (engine.encode(PROMPT) * 4)[:60]
    for count in (10, 20, 21, 22, 40, 60, 30, 15, 50, 19, 20):
        with torch.inference_mode():
            expected = reference(base)(torch.tensor([ids[:count]])).logits[0, -1]
        torch.testing.assert_close(engine.logits(ids[:count]), expected, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        whole = (
            reference(base)(torch.tensor([ids[:-1]]))
            .logits[0]
            .log_softmax(-1)
            .gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        )
    torch.testing.assert_close(engine.score(ids), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [6, 19, 30])
def test_answers_beyond_the_trained_window_are_those_of_transformers(
    length: int, tmp_path: Path
) -> None:
    scaling = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    base = save_tiny(
        tmp_path,
        transformers.LlamaConfig(
            **GROUPED | {"max_position_embeddings": 20, "rope_parameters": scaling}
        ),
        seed=3,
    )
    engine = open_engine(base)
    ids = (engine.encode(PROMPT) * 4)[:length]
    engine.logits(list(range(5, 65)))
    assert greedy(engine, ids) == generate(reference(base), ids)
    engine.logits(list(range(5, 45)))
    assert greedy(engine, ids) == generate(reference(base), ids)


@pytest.mark.parametrize(
    ("kind", "more"), [("yarn", {"original_max_position_embeddings": 64}), ("linear", {})]
)
def test_a_stretched_window_holds_what_its_config_means(
    kind: str, more: dict[str, int], tmp_path: Path
) -> None:
    scaling = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0} | more
    base = save_tiny(
        tmp_path,
        transformers.LlamaConfig(
            **GROUPED | {"max_position_embeddings": 64, "rope_parameters": scaling}
        ),
        seed=3,
    )
    engine = open_engine(base)
    assert engine.context == 256
    ids = (engine.encode(PROMPT) * 20)[:100]
    assert greedy(engine, ids) == generate(reference(base), ids)


def test_a_state_that_lives_in_the_modules_is_refused(tmp_path: Path) -> None:
    """RecurrentGemma keeps what it has read beside its weights: two texts would share it."""
    sizes = LLAMA_LIKE | {
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "lru_width": 64,
        "attention_window_size": 16,
    }
    base = save_tiny(tmp_path, transformers.RecurrentGemmaConfig(**sizes), seed=3)
    with pytest.raises(
        Mismatch, match=r"^the architecture `recurrent_gemma` is not supported"
    ) as refused:
        open_engine(base)
    assert refused.value.exit_code == 8


def test_a_model_that_forgets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Mamba was run: its cache under a name that it does not look at."""
    kind, sizes, _ = TABLE["mamba"]
    base = save_tiny(tmp_path / "base", getattr(transformers, kind)(**sizes), seed=3)
    monkeypatch.setattr(causal, "_CACHE_NAMES", ("past_key_values",))
    with pytest.raises(Mismatch, match="`mamba` is not supported"):
        open_engine(base)


def test_what_transformers_cannot_run_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path, transformers.HeliumConfig(**GROUPED, head_dim=16), seed=3)

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nand more")

    monkeypatch.setattr(transformers.models.helium.modeling_helium.HeliumModel, "forward", broken)
    with pytest.raises(
        Mismatch,
        match=r"^the architecture `helium` cannot be run: mat1 and mat2 shapes cannot be mult",
    ):
        open_engine(base)


def test_what_was_proven_is_not_tested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path / "base", transformers.HeliumConfig(**GROUPED, head_dim=16), seed=3)
    proven = tmp_path / "cache" / "proven"
    TransformersEngine(base, weights="fp32", device="cpu", proven=proven)
    monkeypatch.setattr(self_test, "difference", lambda *_: pytest.fail("tested again"))
    TransformersEngine(base, weights="fp32", device="cpu", proven=proven)


@pytest.mark.parametrize(("target", "refused"), [("in_proj", False), ("dt_proj", True)])
def test_an_adapter_of_a_layer_that_the_model_reads_itself_is_merged_or_refused(
    target: str, refused: bool, tmp_path: Path
) -> None:
    kind, sizes, _ = TABLE["mamba"]
    base = save_tiny(tmp_path / "base", getattr(transformers, kind)(**sizes), seed=3)
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=[target], std=0.5)
    merged, engine = open_engine(base, adapter), open_engine(base)
    ids = engine.encode(PROMPT)
    if refused:
        with pytest.raises(Mismatch, match="dt_proj`, whose weight the model reads itself"):
            engine.load_adapter("own", adapter)
        assert (merged.logits(ids) - engine.logits(ids)).abs().max() > 0.01
    else:
        engine.load_adapter("own", adapter)
        engine.choose((("own", 1.0),))
        torch.testing.assert_close(engine.logits(ids), merged.logits(ids), rtol=1e-3, atol=1e-3)


class Reading(torch.nn.Module):
    """One child is called, one is read, one is a subclass that multiplies, one a subclass that
    does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.multiplies, self.routes = Multiplying(4, 4), Routing(4, 4)

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, x: torch.Tensor) -> Any:
        return self.routes(self.multiplies(self.called(x) @ self.read.weight.T))


class Multiplying(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x @ self.weight.T
        return out if self.bias is None else out + self.bias


class Routing(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).topk(1)


def test_only_what_multiplies_and_is_read_by_nobody_else_is_quantised() -> None:
    assert set(quantisable(Reading())) == {"called", "multiplies"}


@dataclass
class Own:
    """A cache of a model's own make."""

    state: torch.Tensor


def test_copies_are_few_small_and_densest_at_the_end() -> None:
    copies = Copies()
    for length in range(10, 410, 10):
        copies.keep(length, Own(torch.full((100,), float(length))))
    lengths = [copy.length for copy in copies._copies]
    assert len(lengths) <= 12 and lengths[-2:] == [390, 400] and lengths[0] <= 200
    kept, cache = copies.back(None, 400, 395)
    assert kept == 390 and cache.state[0] == 390
    cache.state.zero_()
    assert copies.back(None, 390, 390)[1].state[0] == 390, "the copy itself is never changed"
    assert copies.back(None, 400, 3) == (0, None)


def test_a_state_that_is_too_large_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchat.engines.transformers.modules.state_copies.MOST_BYTES", 1000)
    copies = Copies()
    copies.keep(10, Own(torch.zeros(251)))
    assert copies.back(None, 20, 20) == (0, None)


def test_the_compiled_family_needs_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "check", lambda *_: pytest.fail("tested"))
    open_engine(save_tiny(tmp_path, tiny_config()))
