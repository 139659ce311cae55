"""Every architecture through the engine, against transformers and peft on tiny models: the same
tokens, in every kind of weights, turn by turn.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.architectures import (
    ARCHITECTURES,
    GROUPED,
    PROMPT,
    QUESTION,
    READS_ANEW,
    SEEDS,
    VISION,
    answer,
    config_of,
    generate,
    greedy,
    open_engine,
    reference,
)
from support.checkpoints import save_adapter, save_tiny, tiny_tokenizer

from llmchat.engines import Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.checkpoint_names import modern_config, modern_name
from llmchat.errors import IntegrityError, UsageError
from llmchat.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), config_of(name), seed=SEEDS.get(name, 3))


@pytest.fixture(scope="module")
def engine(base: Path) -> TransformersEngine:
    """The one of all tests of an architecture; with its cache cleared it answers as a cold one."""
    return open_engine(base)


def test_greedy_tokens_are_those_of_transformers(engine: TransformersEngine, base: Path) -> None:
    ids = engine.encode(PROMPT)
    expected = generate(reference(base), ids)
    assert greedy(engine, ids) == expected
    assert len(set(expected)) > 2, "a model that repeats itself would prove little"


def test_an_adapter_gives_the_tokens_of_peft(
    name: str, engine: TransformersEngine, base: Path, tmp_path: Path
) -> None:
    kind = "SEQ_2_SEQ_LM" if name in READS_ANEW else "CAUSAL_LM"
    adapter = save_adapter(tmp_path, base, target_modules=ARCHITECTURES[name][2], task_type=kind)
    ids = engine.encode(PROMPT)
    expected = generate(peft.PeftModel.from_pretrained(reference(base), adapter), ids)
    assert greedy(open_engine(base, adapter), ids) == expected != greedy(engine, ids)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_weights_answer(
    weights: Any, engine: TransformersEngine, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quantised, ids = open_engine(base, weights=weights), engine.encode(PROMPT)
    _, finish = answer(quantised, PROMPT)
    assert finish.reply_tokens > 0
    exact, near = engine.logits(ids), quantised.logits(ids).float()
    assert (near - exact).norm() / exact.norm() < {"int8": 0.1, "int4": 0.7}[weights]
    assert capfd.readouterr() == ("", ""), "loading is silent"


def test_an_end_token_ends_the_answer(engine: TransformersEngine) -> None:
    third = greedy(engine, engine.encode(PROMPT))[2]
    _, finish = answer(engine, Prompt(QUESTION, (), stop_ids=(third,)))
    assert finish.reason == "stop" and finish.reply_tokens <= 3


def test_the_next_turn_is_that_of_a_cold_engine_and_reads_only_what_is_new(
    name: str, engine: TransformersEngine
) -> None:
    engine.clear_cache()
    said, first = answer(engine, PROMPT)
    again, repeated = answer(engine, PROMPT)
    assert again == said, "the same question again"
    following = Prompt(f"{QUESTION}{said} and the fox", ())
    warm, finish = answer(engine, following)
    assert warm == cold_answer(engine, following)
    if name in READS_ANEW:
        assert finish.cached_tokens == 0
        # Only an encoder of ours is known not to have read the same prompt again.
        assert repeated.cached_tokens == (0 if name == "bart" else first.prompt_tokens - 1)
    else:
        assert repeated.cached_tokens == first.prompt_tokens - 1
        assert finish.cached_tokens >= first.prompt_tokens - 1


def test_a_prompt_that_turns_off_early_is_that_of_a_cold_engine(engine: TransformersEngine) -> None:
    engine.clear_cache()
    answer(engine, PROMPT)
    other = Prompt(f"{QUESTION[:20]} question", ())
    assert answer(engine, other)[0] == cold_answer(engine, other)


def cold_answer(engine: TransformersEngine, prompt: Prompt) -> str:
    engine.clear_cache()
    text, finish = answer(engine, prompt)
    assert finish.cached_tokens == 0
    return text


def rewritten(
    base: Path,
    target: Path,
    rename: Any,
    config: dict[str, Any] | None = None,
    **more: torch.Tensor,
) -> Path:
    """A copy of a checkpoint with other tensor names, another config, and tensors that are of no
    use.
    """
    shutil.copytree(base, target)
    tensors = {
        rename(name): tensor for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(tensors | more, target / "model.safetensors", {"format": "pt"})
    if config:
        (target / "config.json").write_text(json.dumps(config))
    return target


def saved(name: str, folder: Path) -> tuple[Path, list[int], list[int]]:
    """(folder of a new checkpoint, ids of the question, what transformers answers)."""
    base = save_tiny(folder, config_of(name), seed=SEEDS.get(name, 3))
    ids = open_engine(base).encode(PROMPT)
    return base, ids, generate(reference(base), ids)


@pytest.mark.parametrize("name", ["bloom", "gpt2"])
def test_files_without_the_prefix_of_the_whole_model(name: str, tmp_path: Path) -> None:
    base, ids, expected = saved(name, tmp_path / "base")
    old = rewritten(base, tmp_path / "old", lambda tensor: tensor.removeprefix("transformer."))
    assert greedy(open_engine(old), ids) == expected
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=ARCHITECTURES[name][2])
    assert (
        greedy(open_engine(old, adapter), ids)
        == greedy(open_engine(base, adapter), ids)
        != expected
    )


def test_buffers_of_old_files_are_passed_over(tmp_path: Path) -> None:
    base, ids, expected = saved("gpt-neox", tmp_path / "base")
    layer = "gpt_neox.layers.0.attention"
    buffers = {
        f"{layer}.bias": torch.ones(1, 1, 256, 256, dtype=torch.bool),
        f"{layer}.masked_bias": torch.tensor(-1e9),
        f"{layer}.rotary_emb.inv_freq": torch.full((2,), 9.0),
    }
    assert greedy(open_engine(rewritten(base, tmp_path / "old", str, **buffers)), ids) == expected


@pytest.mark.parametrize("name", ["falcon 7b", "falcon 40b"])
def test_the_first_falcon_files_need_no_code_of_their_own(name: str, tmp_path: Path) -> None:
    base, ids, expected = saved(name, tmp_path / "base")
    config = {
        "alibi": False, "apply_residual_connection_post_layernorm": False,
        "architectures": ["RWForCausalLM"], "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_RW.RWConfig",
            "AutoModelForCausalLM": "modelling_RW.RWForCausalLM"},
        "bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_dropout": 0.0,
        "hidden_size": 64, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "n_head": 4, "n_layer": 2, "parallel_attn": True,
        "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 320,
    }  # fmt: skip
    shape = {
        "falcon 7b": {"model_type": "RefinedWebModel", "multi_query": True},
        "falcon 40b": {"model_type": "RefinedWeb", "n_head_kv": 2},
    }
    old = rewritten(base, tmp_path / "old", str, config | shape[name])
    assert greedy(open_engine(old), ids) == expected
    adapter = save_adapter(
        tmp_path / "adapter", base, target_modules=["query_key_value"], use_dora=True
    )
    assert greedy(open_engine(old, adapter), ids) == greedy(open_engine(base, adapter), ids)


def test_an_mpt_config_from_the_time_of_its_own_code(tmp_path: Path) -> None:
    base, ids, expected = saved("mpt", tmp_path / "base")
    attention = {
        "alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False, "clip_qkv": None, "prefix_lm": False, "qk_ln": False,
        "softmax_scale": None,
    }  # fmt: skip
    config = {
        "architectures": ["MPTForCausalLM"], "attn_config": attention, "d_model": 64,
        "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4,
        "auto_map": {"AutoConfig": "configuration_mpt.MPTConfig",
            "AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"},
        "init_config": {"name": "kaiming_normal_", "verbose": 0}, "init_device": "cpu",
        "learned_pos_emb": True, "logit_scale": None, "max_seq_len": 256,
        "model_type": "mpt", "n_heads": 4, "n_layers": 2, "no_bias": True,
        "norm_type": "low_precision_layernorm", "resid_pdrop": 0,
        "tokenizer_name": "EleutherAI/gpt-neox-20b", "torch_dtype": "bfloat16",
        "transformers_version": "4.28.1", "use_cache": False, "verbose": 0,
        "vocab_size": 320,
    }  # fmt: skip
    assert greedy(open_engine(rewritten(base, tmp_path / "old", str, config)), ids) == expected


@pytest.mark.parametrize("form", ["model.language_model.{}", "language_model.model.{}"])
def test_the_language_model_of_a_multimodal_checkpoint(form: str, tmp_path: Path) -> None:
    base, ids, expected = saved("gemma3", tmp_path / "base")
    text = json.loads((base / "config.json").read_text())
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "eos_token_id": [2, 106],
    }
    vision = {
        "vision_tower.vision_model.head.weight": torch.zeros(4, 4),
        "model.vision_tower.encoder.weight": torch.zeros(4, 4),
    }
    wrapped = rewritten(
        base,
        tmp_path / "wrapped",
        lambda name: form.format(name.removeprefix("model.")),
        config,
        **vision,
    )
    engine = open_engine(wrapped)
    assert greedy(engine, ids) == expected and engine.context == 256
    adapter = save_adapter(tmp_path / "adapter", base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    inside = {
        name.replace("model.model.layers", "model.model.language_model.layers"): tensor
        for name, tensor in tensors.items()
    }
    shutil.copytree(adapter, tmp_path / "inside")
    save_file(inside, tmp_path / "inside" / "adapter_model.safetensors")
    assert (
        greedy(open_engine(wrapped, tmp_path / "inside"), ids)
        == greedy(open_engine(base, adapter), ids)
        != expected
    )


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL"])
def test_the_language_model_of_qwen_vl(kind: str, weights: Any, tmp_path: Path) -> None:
    text = GROUPED | {
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    }
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, tie_word_embeddings=False, vision_config=VISION
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).float().eval()
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            parameter.normal_(
                std=0.3 / parameter.shape[-1] ** 0.25
            ) if parameter.dim() > 1 else None
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    engine = open_engine(tmp_path, weights=weights)
    ids = engine.encode(PROMPT)
    if weights == "fp32":
        assert greedy(engine, ids) == generate(model, ids)
        assert engine.context == 256
    else:
        with torch.inference_mode():
            exact = model(torch.tensor([ids])).logits[0, -1]
        assert (engine.logits(ids).float() - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("head", [True, False])
def test_flags_that_disagree_about_the_head(head: bool, tmp_path: Path) -> None:
    """Mistral Small 3.1: the outer config ties what the inner one does not. The files say which is
    meant.
    """
    base, ids, expected = saved("mistral", tmp_path / "base")
    text = json.loads((base / "config.json").read_text())
    tensors = load_file(base / "model.safetensors")
    if not head:
        tied = tmp_path / "tied"
        shutil.copytree(base, tied)
        save_file(
            {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"},
            tied / "model.safetensors",
            {"format": "pt"},
        )
        (tied / "config.json").write_text(json.dumps(text | {"tie_word_embeddings": True}))
        base, expected = tied, generate(reference(tied), ids)
    config = {
        "model_type": "mistral3",
        "text_config": text | {"tie_word_embeddings": False},
        "tie_word_embeddings": True,
        "eos_token_id": 2,
    }
    wrapped = rewritten(base, tmp_path / "wrapped", lambda name: f"language_model.{name}", config)
    assert greedy(open_engine(wrapped), ids) == expected


def test_a_checkpoint_that_lacks_a_tensor_is_not_run_with_a_random_one(tmp_path: Path) -> None:
    sizes = GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1}
    base = save_tiny(tmp_path, transformers.MixtralConfig(**sizes), seed=3)
    tensors = load_file(base / "model.safetensors")
    lacking = next(name for name in tensors if "q_proj" in name)
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != lacking},
        base / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(IntegrityError, match=r"the weights have no `.*q_proj.weight`"):
        open_engine(base)


def test_an_adapter_for_conv1d_and_linear_layers_together(tmp_path: Path) -> None:
    """peft writes `fan_in_fan_out` of the last layer it met, here the head's."""
    base, ids, expected = saved("gpt2", tmp_path / "base")
    adapter = save_adapter(
        tmp_path / "adapter", base, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    with_head = save_adapter(tmp_path / "head", base, target_modules=["c_proj"])
    (with_head / "adapter_config.json").write_text(
        (with_head / "adapter_config.json")
        .read_text()
        .replace('"fan_in_fan_out": true', '"fan_in_fan_out": false')
    )
    for folder in (adapter, with_head):
        assert (
            greedy(open_engine(base, folder), ids)
            == generate(peft.PeftModel.from_pretrained(reference(base), folder), ids)
            != expected
        )


def test_frequencies_that_turn_in_the_middle_of_a_chat(tmp_path: Path) -> None:
    """Phi-3's longrope: past 8 tokens every position is turned otherwise, those before as well."""
    factors = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
    }
    sizes = GROUPED | {"original_max_position_embeddings": 8, "rope_parameters": factors}
    base = save_tiny(tmp_path, transformers.Phi3Config(**sizes), seed=3)
    engine, model = open_engine(base), reference(base)
    ids = engine.encode(PROMPT)
    for count in (5, 8, 9, 12, len(ids), 6, 14):
        with torch.inference_mode():
            expected = model(torch.tensor([ids[:count]])).logits[0, -1]
        torch.testing.assert_close(engine.logits(ids[:count]), expected, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        whole = (
            model(torch.tensor([ids]))
            .logits[0, :-1]
            .log_softmax(-1)
            .gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        )
    torch.testing.assert_close(engine.score(ids), whole, rtol=1e-4, atol=1e-4)


def test_an_encoder_decoder_reads_a_closed_prompt_and_answers_in_a_room_of_its_own(
    tmp_path: Path,
) -> None:
    base = save_tiny(tmp_path, config_of("t5"), seed=3)
    engine = open_engine(base)
    assert engine.encode(PROMPT)[-1] == 2 and engine.encode(PROMPT).count(2) == 1
    assert engine.context == 2048, "512 in the config bounds nothing: positions are relative"
    long = Prompt("fox " * 1500, ())
    _, finish = answer(engine, long, Sampling(temperature=0, max_tokens=3))
    assert finish.prompt_tokens > 1500 and finish.reply_tokens <= 3
    with pytest.raises(UsageError, match="cannot score a text"):
        engine.score([5, 6, 7])
    _, hot = answer(engine, PROMPT, Sampling(temperature=0, max_tokens=8, repetition_penalty=1.3))
    assert hot.reply_tokens > 0


def test_a_longer_prompt_is_another_one_for_an_encoder(tmp_path: Path) -> None:
    base = save_tiny(tmp_path, config_of("t5"), seed=3)
    engine, cold = open_engine(base), open_engine(base)
    engine.logits([5, 6, 7])
    assert torch.equal(engine.logits([5, 6, 7, 8]), cold.logits([5, 6, 7, 8]))


def test_what_was_encoded_is_encoded_once(tmp_path: Path) -> None:
    engine = open_engine(save_tiny(tmp_path, config_of("t5"), seed=3))
    calls = []
    encode = engine._forward._encode  # type: ignore[attr-defined]
    counted = lambda prompts: calls.append(len(prompts)) or encode(prompts)  # noqa: E731
    engine._forward._encode = counted  # type: ignore[attr-defined]
    first = answer(engine, PROMPT)[0]
    assert answer(engine, PROMPT)[0] == first and len(calls) == 1
    answer(engine, Prompt("the lazy dog", ()))
    assert answer(engine, PROMPT)[0] == first and len(calls) == 3
    engine.clear_cache()
    assert answer(engine, PROMPT)[0] == first and len(calls) == 4


def test_an_encoder_reads_its_prompt_again_with_other_adapters(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", config_of("t5"), seed=3)
    options: Any = {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM", "std": 0.5}
    adapter = save_adapter(tmp_path / "adapter", base, **options)
    engine, merged = open_engine(base), open_engine(base, adapter)
    engine.load_adapter("own", adapter)
    for ids in ([5], [5, 6, 7]):
        plain = engine.logits(ids)
        engine.choose((("own", 1.0),))
        torch.testing.assert_close(engine.logits(ids), merged.logits(ids), rtol=1e-4, atol=1e-4)
        engine.choose(())
        torch.testing.assert_close(engine.logits(ids), plain, rtol=1e-4, atol=1e-4)


def test_a_state_goes_back_to_where_prompts_ended(tmp_path: Path) -> None:
    """A chat whose last answer was shortened, then undone: what was read before each question is
    not read again.
    """
    base = save_tiny(tmp_path, config_of("rwkv"), seed=3)
    engine = open_engine(base)
    assert engine.context == 4096, "1024 in the config bounds nothing"
    said, first = answer(engine, PROMPT)
    second = Prompt(f"{QUESTION}{said[:1]} and the fox", ())
    _, finish = answer(engine, second)
    assert finish.cached_tokens >= first.prompt_tokens - 1
    _, undone = answer(engine, Prompt(f"{QUESTION} jumps", ()))
    assert undone.cached_tokens >= first.prompt_tokens - 1
    assert answer(engine, second)[0] == answer(open_engine(base), second)[0]


@pytest.mark.parametrize("name", ["rwkv", "gemma3", "mistral", "falcon rw"], scope="module")
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_prompts_in_any_order_give_cold_logits(
    engine: TransformersEngine, data: st.DataObject
) -> None:
    token = st.integers(5, 319)
    ids = data.draw(st.lists(token, min_size=1, max_size=24))
    engine.clear_cache()
    for _ in range(3):
        engine.logits(ids)
        ids = ids[: data.draw(st.integers(0, len(ids)))] + data.draw(
            st.lists(token, min_size=1, max_size=12)
        )
    warm = engine.logits(ids)
    engine.clear_cache()
    torch.testing.assert_close(warm, engine.logits(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["rwkv", "t5"])
def test_an_interrupt_leaves_a_clean_engine(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path, config_of(name), seed=3)
    engine = open_engine(base)
    expected = answer(engine, PROMPT)[0]
    left = 9

    def interrupted(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return linear(*arguments, **options)

    linear = torch.nn.functional.linear
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", interrupted)
        with pytest.raises(KeyboardInterrupt):
            answer(engine, Prompt(f"{QUESTION} and the fox", ()))
    assert answer(engine, PROMPT)[0] == expected


def test_names_and_configs_are_told_as_today() -> None:
    assert modern_name("h.0.ln_1.weight", {"model_type": "gpt2"}) == "transformer.h.0.ln_1.weight"
    assert modern_name("lm_head.weight", {"model_type": "bloom"}) == "lm_head.weight"
    assert modern_name("head.weight", {"model_type": "rwkv"}) == "head.weight"
    assert modern_name("anything", {"model_type": "unheard-of"}) == "anything"
    wrapped = {"model_type": "gemma3", "text_config": {}}
    assert modern_name("language_model.lm_head.weight", wrapped) == "lm_head.weight"
    assert modern_name("multi_modal_projector.mm_soft_emb_norm.weight", wrapped) is None
    assert modern_config({"model_type": "falcon", "n_head": 3}) == {
        "model_type": "falcon",
        "n_head": 3,
    }
    assert modern_config({"model_type": "RefinedWeb", "n_head_kv": 8})["num_kv_heads"] == 8
