"""The engine against transformers and peft on tiny models: same tokens, a cache that changes
nothing, clean stops.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import save_adapter, save_tiny, tiny_config
from transformers import AutoModelForCausalLM, GPTNeoXConfig, MistralConfig, Qwen2Config

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine, loading
from llmchat.engines.transformers.modules import causal
from llmchat.engines.transformers.pytorch import forward
from llmchat.errors import ContextOverflow, Mismatch, OutOfResources, UsageError
from llmchat.prompt import Prompt

GREEDY = Sampling(temperature=0, max_tokens=24)
PROMPT = Prompt("the quick brown fox", ())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture
def engine(base: Path) -> TransformersEngine:
    return TransformersEngine(base, weights="fp32", device="cpu")


def generate(model: Any, ids: list[int], count: int) -> list[int]:
    """What transformers' own loop answers, greedily."""
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return out[0].tolist()[len(ids) :]  # type: ignore[no-any-return]


def greedy(engine: TransformersEngine, ids: list[int], count: int) -> list[int]:
    reply: list[int] = []
    while len(reply) < count and (not reply or reply[-1] != 2):
        reply.append(int(engine.logits(ids + reply).argmax()))
    return reply


def answer(
    engine: TransformersEngine, prompt: Prompt, sampling: Sampling = GREEDY
) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(prompt, sampling)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


FAMILY = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ARCHITECTURES = {
    "llama": (tiny_config(), forward.TorchForward),
    "llama, tied, biased": (
        tiny_config(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
        forward.TorchForward,
    ),
    "llama, rope llama3": (tiny_config(rope_parameters=LLAMA3_ROPE), forward.TorchForward),
    "llama, rope linear": (
        tiny_config(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
        forward.TorchForward,
    ),
    "mistral": (
        MistralConfig(**FAMILY, num_key_value_heads=2, sliding_window=None),
        forward.TorchForward,
    ),
    "qwen2": (
        Qwen2Config(**FAMILY, num_key_value_heads=1, use_sliding_window=False),
        forward.TorchForward,
    ),
    "mistral, sliding window": (
        MistralConfig(**FAMILY, num_key_value_heads=2, sliding_window=16),
        forward.TorchForward,
    ),
    "gpt-neox": (GPTNeoXConfig(**FAMILY), forward.TorchForward),
    "llama, rope dynamic": (
        tiny_config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        causal.ModulesForward,
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    config, forward = ARCHITECTURES[name]
    folder = save_tiny(tmp_path, config, seed=3)
    engine = TransformersEngine(folder, weights="fp32", device="cpu")
    assert isinstance(engine._forward, forward)
    ids = engine.encode(
        Prompt("the quick brown fox jumps over the lazy dog, and the answer is here", ())
    )
    expected = generate(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ids, 24)
    assert greedy(engine, ids, 24) == expected
    assert len(set(expected)) > 2, "a model that repeats itself would prove little"


@pytest.mark.parametrize("name", ["llama", "gpt-neox"])
def test_scores_are_the_log_probabilities_of_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.engines.transformers.scoring.SCORE_CHUNK", 4)
    folder = save_tiny(tmp_path, ARCHITECTURES[name][0], seed=3)
    engine = TransformersEngine(folder, weights="fp32", device="cpu")
    ids = engine.encode(
        Prompt("the quick brown fox jumps over the lazy dog, and the answer is here", ())
    )
    assert len(ids) > 12
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(
            torch.tensor([ids])
        ).logits[0, :-1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(engine.score(ids), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {
            "r": 3,
            "use_rslora": True,
            "target_modules": [
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ],
        },
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["q and v", "all linears, rslora", "patterns", "dora, by peft", "a saved head, by peft"],
)
def test_an_adapter_gives_the_tokens_of_peft(
    lora: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    import peft

    adapter = save_adapter(tmp_path, base, **lora)
    engine = TransformersEngine(base, [adapter], weights="fp32", device="cpu")
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
    )
    ids = engine.encode(PROMPT)
    expected = generate(model, ids, 24)
    assert greedy(engine, ids, 24) == expected
    assert greedy(TransformersEngine(base, weights="fp32", device="cpu"), ids, 24) != expected


@pytest.mark.parametrize(
    "lora",
    [{"target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["q_proj"], "use_dora": True}],
    ids=["plain", "dora"],
)
def test_an_adapter_is_put_on_as_strongly_as_asked(
    lora: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    import peft

    adapter = save_adapter(tmp_path, base, r=4, lora_alpha=8, **lora)
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
    )
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.set_scale("default", 0.5)
    ids = [5, 9, 30, 31]
    half = TransformersEngine(
        base, (adapter,), weights="fp32", device="cpu", adapter_scale=0.5
    ).logits(ids)
    with torch.inference_mode():
        torch.testing.assert_close(
            half, model(torch.tensor([ids])).logits[0, -1], rtol=1e-3, atol=1e-3
        )
    if "use_dora" not in lora:
        none = TransformersEngine(
            base, (adapter,), weights="fp32", device="cpu", adapter_scale=0.0
        ).logits(ids)
        torch.testing.assert_close(
            none, TransformersEngine(base, weights="fp32", device="cpu").logits(ids)
        )


def test_a_chain_of_adapters_is_merged_in_order(base: Path, tmp_path: Path) -> None:
    import peft

    first = save_adapter(tmp_path / "first", base, seed=1)
    second = save_adapter(tmp_path / "second", base, seed=2, target_modules=["q_proj", "down_proj"])
    engine = TransformersEngine(base, [first, second], weights="fp32", device="cpu")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for adapter in (first, second):
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    ids = engine.encode(PROMPT)
    assert greedy(engine, ids, 24) == generate(model, ids, 24)


def test_an_adapter_for_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", tiny_config(hidden_size=32))
    adapter = save_adapter(tmp_path / "adapter", other)
    with pytest.raises(
        Mismatch, match=r"`model\.layers\.0\.self_attn\.q_proj` is 32 x 32; here it is 64 x 64"
    ):
        TransformersEngine(base, [adapter], device="cpu")
    deeper = save_tiny(tmp_path / "deeper", tiny_config(num_hidden_layers=3))
    with pytest.raises(
        Mismatch, match=r"changes `model\.layers\.2\..*`, which the base model does not have"
    ):
        TransformersEngine(base, [save_adapter(tmp_path / "deep", deeper)], device="cpu")


def test_an_adapter_that_does_nothing_is_refused(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = save_adapter(tmp_path, base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {
            name: torch.zeros_like(tensor) if "lora_B" in name else tensor
            for name, tensor in tensors.items()
        },
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(Mismatch, match="changes nothing"):
        TransformersEngine(base, [adapter], device="cpu")
    save_file({}, adapter / "adapter_model.safetensors")
    with pytest.raises(Mismatch, match="is empty"):
        TransformersEngine(base, [adapter], device="cpu")


def test_an_early_2023_adapter_config_is_read(base: Path, tmp_path: Path) -> None:
    import json

    adapter = save_adapter(tmp_path, base)
    before = greedy(
        TransformersEngine(base, [adapter], weights="fp32", device="cpu"), [1, 50, 60], 8
    )
    config = {
        "base_model_name_or_path": "decapoda-research/llama-7b-hf", "bias": "none",
        "enable_lora": None, "fan_in_fan_out": False, "inference_mode": True,
        "lora_alpha": 8, "lora_dropout": 0.05, "merge_weights": False, "modules_to_save": None,
        "peft_type": "LORA", "r": 4,
        "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert (
        greedy(TransformersEngine(base, [adapter], weights="fp32", device="cpu"), [1, 50, 60], 8)
        == before
    )


@pytest.fixture(scope="module", params=["llama", "general"])
def warm_and_cold(
    request: pytest.FixtureRequest, base: Path
) -> tuple[TransformersEngine, TransformersEngine]:
    """Two engines of an executor; the second is asked once and then cleared."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "general":
            patch.setattr(loading, "plan_of", lambda config: None)
        warm, cold = (TransformersEngine(base, weights="fp32", device="cpu") for _ in range(2))
    return warm, cold


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_cache_cut_anywhere_gives_cold_logits(
    warm_and_cold: tuple[TransformersEngine, TransformersEngine], data: st.DataObject
) -> None:
    warm, cold = warm_and_cold
    token = st.integers(5, 319)
    ids = data.draw(st.lists(token, min_size=1, max_size=40))
    for _ in range(3):
        warm.logits(ids)
        ids = ids[: data.draw(st.integers(0, len(ids)))] + data.draw(
            st.lists(token, min_size=1, max_size=12)
        )
    cold.clear_cache()
    torch.testing.assert_close(warm.logits(ids), cold.logits(ids), rtol=1e-4, atol=1e-4)


def test_the_next_turn_reads_only_what_is_new(engine: TransformersEngine) -> None:
    first = "the quick brown fox jumps over the lazy dog"
    text, finish = answer(engine, Prompt(first, ()))
    assert finish.cached_tokens == 0
    again = Prompt(first + text + " and the answer", ())
    _, finish = answer(engine, again)
    assert finish.cached_tokens >= len(engine.encode(Prompt(first, ())))
    assert finish.prompt_tokens - finish.cached_tokens <= len(engine.encode(again)) - len(
        engine.encode(Prompt(first, ()))
    )


def test_an_answer_that_is_closed_early_leaves_a_clean_engine(
    engine: TransformersEngine, base: Path
) -> None:
    stream = engine.stream(PROMPT, GREEDY)
    next(stream)
    stream.close()
    assert (
        answer(engine, PROMPT)[0]
        == answer(TransformersEngine(base, weights="fp32", device="cpu"), PROMPT)[0]
    )


@pytest.mark.parametrize("executor", ["llama", "general"])
def test_an_interrupt_inside_the_model_leaves_a_clean_engine(
    executor: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "general":
        monkeypatch.setattr(loading, "plan_of", lambda config: None)
    engine = TransformersEngine(base, weights="fp32", device="cpu")
    expected = answer(engine, PROMPT)[0]
    calls = 0

    def interrupted(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return attend(*arguments, **options)

    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer(engine, Prompt("the lazy dog and the answer", ()))
    assert answer(engine, PROMPT)[0] == expected


def test_a_stop_string_ends_the_answer_and_is_not_shown(engine: TransformersEngine) -> None:
    text, _ = answer(engine, PROMPT)
    stop = text[6:9]
    shown, finish = answer(engine, PROMPT, Sampling(temperature=0, max_tokens=24, stops=(stop,)))
    assert finish.reason == "stop" and shown == text[: text.index(stop)]
    assert answer(engine, Prompt(PROMPT.text, (), stops=(stop,)))[0] == shown


def test_an_end_token_ends_the_answer(engine: TransformersEngine, base: Path) -> None:
    ids = engine.encode(PROMPT)
    fifth = greedy(engine, ids, 5)[4]
    _, finish = answer(engine, Prompt(PROMPT.text, (), stop_ids=(fifth,)))
    assert finish.reason == "stop" and finish.reply_tokens <= 5


def test_length_is_bounded_by_max_tokens_and_by_the_model(engine: TransformersEngine) -> None:
    assert answer(engine, PROMPT, Sampling(temperature=0, max_tokens=3))[1].reply_tokens == 3
    long = Prompt("fox " * 120, ())
    _, finish = answer(engine, long, Sampling(temperature=0))
    assert (
        finish.reason == "length" and finish.prompt_tokens + finish.reply_tokens == engine.context
    )
    with pytest.raises(ContextOverflow, match="the model holds 256"):
        answer(engine, Prompt("fox " * 400, ()))


def test_the_same_seed_gives_the_same_answer_and_is_reported(engine: TransformersEngine) -> None:
    hot = Sampling(temperature=2.0, max_tokens=20, seed=7)
    first, finish = answer(engine, PROMPT, hot)
    assert finish.seed == 7 and answer(engine, PROMPT, hot)[0] == first
    free, finish = answer(engine, PROMPT, Sampling(temperature=2.0, max_tokens=20))
    assert (
        answer(engine, PROMPT, Sampling(temperature=2.0, max_tokens=20, seed=finish.seed))[0]
        == free
        != first
    )


@pytest.mark.parametrize("weights", ["int8", "int4", "bf16"])
def test_every_kind_of_weights_stays_near_fp32(weights: Any, tmp_path: Path) -> None:
    base = save_tiny(tmp_path, tiny_config(hidden_size=128, intermediate_size=256))
    ids = list(range(10, 60))
    exact = TransformersEngine(base, weights="fp32", device="cpu").logits(ids)
    near = TransformersEngine(base, weights=weights, device="cpu").logits(ids).float()
    error = (near - exact).norm() / exact.norm()
    assert error < {"int8": 0.06, "int4": 0.5, "bf16": 0.05}[weights]


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmchat.engines.transformers import memory_check

    shapes = {
        "model.layers.0.mlp.up_proj.weight": (100_000, 65_536),
        "model.embed_tokens.weight": (32_000, 4096),
    }
    monkeypatch.setattr(memory_check, "available", lambda device: 8_000_000_000)
    with pytest.raises(
        OutOfResources, match=r"needs 14\.0 GB as bf16; 8\.0 GB of memory are free"
    ) as refused:
        memory_check.check(shapes, "bf16", torch.device("cpu"))
    assert refused.value.hint == "it would fit with --weights int8 (7.4 GB)"
    monkeypatch.setattr(memory_check, "available", lambda device: 1_000_000)
    with pytest.raises(OutOfResources) as refused:
        TransformersEngine(base, device="cpu")
    assert "smaller model" in refused.value.hint


def test_an_unknown_device_is_one_clear_line(base: Path) -> None:
    with pytest.raises(UsageError, match="there is no device `toaster`"):
        TransformersEngine(base, device="toaster")
    with pytest.raises(UsageError, match="the device `meta` is not available"):
        TransformersEngine(base, device="meta")
