"""The presets of 2025 and 2026: each family is there, and says where its facts were read."""

from pathlib import Path

import pytest

from llmchat.errors import UsageError
from llmchat.presets import check as check_preset
from llmchat.presets import find, names
from llmchat.presets.types import Preset

# Family → presets.
TODAY = {
    "Qwen3.5": "qwen3.5-0.8b qwen3.5-2b qwen3.5-4b qwen3.5-9b qwen3.5-27b qwen3.5-35b-a3b",
    "Qwen3.6 and 3.8": "qwen3.6-27b qwen3.6-35b-a3b qwen3.8-27b",
    "Qwen3 MoE": "qwen3-30b-a3b qwen3-30b-a3b-2507 qwen3-30b-a3b-thinking-2507",
    "Qwen3 Coder and Next": "qwen3-coder qwen3-next-80b-a3b qwen3-next-80b-a3b-thinking",
    "QwQ": "qwq",
    "Qwen2.5-Coder": "qwen2.5-coder-0.5b qwen2.5-coder-1.5b qwen2.5-coder-3b qwen2.5-coder-7b"
    " qwen2.5-coder-14b qwen2.5-coder-32b qwen2.5-coder-1.5b-gguf qwen2.5-coder-7b-gguf",
    "Gemma 4": "gemma4-e2b gemma4-e4b gemma4-12b gemma4-26b-a4b gemma4-31b",
    "Gemma 3n": "gemma3n-e2b gemma3n-e4b",
    "gpt-oss": "gpt-oss-20b gpt-oss-120b gpt-oss-20b-gguf",
    "DeepSeek R1": "deepseek-r1-qwen-1.5b deepseek-r1-qwen-7b deepseek-r1-qwen-14b"
    " deepseek-r1-qwen-32b deepseek-r1-llama-8b deepseek-r1-llama-70b deepseek-r1-0528-qwen3-8b",
    "Ministral 3": "ministral3-3b ministral3-8b ministral3-14b ministral3-3b-reasoning"
    " ministral3-8b-reasoning ministral3-14b-reasoning",
    "Mistral Small 3.2 and Devstral": "mistral-small-3.2-24b devstral",
    "ChatGLM": "chatglm-6b chatglm-6b-int4 chatglm2-6b chatglm3-6b",
    "GLM": "glm-4 glm4-9b glm4.5-air glm4.7-flash",
    "Granite 4": "granite4-350m granite4-1b granite4-micro granite4-h-micro granite4-h-tiny"
    " granite4-h-small",
    "LFM2": "lfm2-350m lfm2-700m lfm2-1.2b lfm2-2.6b lfm2-8b-a1b",
    "LFM2.5": "lfm2.5-350m lfm2.5-1.2b lfm2.5-1.2b-thinking lfm2.5-8b-a1b",
    "Phi-4 reasoning": "phi4-reasoning phi4-reasoning-plus phi4-mini-reasoning",
    "OLMo 3": "olmo3-7b olmo3-7b-think olmo3-32b-think",
    "ERNIE 4.5": "ernie4.5-0.3b ernie4.5-21b-a3b ernie4.5-21b-a3b-thinking",
    "Falcon-H1": "falcon-h1-0.5b falcon-h1-1.5b falcon-h1-1.5b-deep falcon-h1-3b falcon-h1-7b"
    " falcon-h1-34b",
    "Hunyuan": "hunyuan-0.5b hunyuan-1.8b hunyuan-4b hunyuan-7b hunyuan-a13b",
    "EXAONE 4": "exaone4-1.2b exaone4-32b",
    "MiniCPM": "minicpm4-0.5b minicpm4-8b minicpm4.1-8b minicpm5-1b",
    "Nemotron Nano": "nemotron-nano-9b-v2 nemotron3-nano-30b",
    "Seed-OSS": "seed-oss-36b",
    "Kimi-Linear": "kimi-linear-48b",
    "Llama 4": "llama4-scout",
    "Apertus": "apertus-8b apertus-70b",
    "Command": "command-r7b command-a",
    "RWKV-7": "rwkv7-world-0.4b rwkv7-world-1.5b rwkv7-world-2.9b",
}
EACH = [name for family in TODAY.values() for name in family.split()]


@pytest.mark.parametrize("name", EACH)
def test_preset_names_the_source_of_its_facts(name: str) -> None:
    preset = find(name)
    assert preset.source and preset.sampling_source
    for fact in ("licence", "window", "stop id"):
        read = fact in preset.source or f"{fact}s" in preset.source
        unread = fact in preset.unread or f"{fact}s" in preset.unread
        assert read or unread or (fact == "stop id" and not preset.stop_ids), fact
    assert "from memory" not in preset.sampling_source or "sampling" in preset.unread


@pytest.mark.parametrize("name", EACH)
def test_window_is_at_most_what_the_model_was_made_for(name: str) -> None:
    preset = find(name)
    assert preset.trained_context == 0 or preset.trained_context > preset.context.tokens


def test_architectures_are_those_of_transformers_or_unsupported() -> None:
    from transformers.models.auto import modeling_auto as auto

    known = {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(),
             *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values(),
             *auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.values()}  # fmt: skip
    # Plans of ours, and no classes of transformers.
    ours = {"ChatGLMForConditionalGeneration", "RWKV7ForCausalLM"}
    unknown = {name for name in EACH if find(name).architecture not in known | ours}
    assert unknown == {name for name in EACH if find(name).unsupported}


def test_every_preset_with_a_source_is_listed_above() -> None:
    sourced = {name for name, preset in names(kind="chat").items() if preset.source}
    assert sourced == {find(name).name for name in EACH}


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        # Never <|end|>, 200007: one answer is several messages that it joins.
        ("gpt-oss-20b", (200002, 200012, 199999)),
        ("qwen3.5-4b", (248046, 248044)),
        ("qwen3-30b-a3b", (151645, 151643)),
        ("gemma4-e2b", (1, 106, 50)),
        # The vocabularies of the distills are those of their bases.
        ("deepseek-r1-qwen-7b", (151643,)),
        ("deepseek-r1-llama-8b", (128001,)),
        ("glm4.7-flash", (154820, 154827, 154829)),
        ("chatglm-6b", (130005,)),
        ("chatglm3-6b", (2, 64795, 64797)),
        ("glm4-9b", (151329, 151336, 151338)),
    ],
)
def test_end_tokens(name: str, ids: tuple[int, ...]) -> None:
    assert find(name).stop_ids == ids


# Of gemma3-270m only the base model ran, as its preset says.
RAN = ["smollm2", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "gemma3-270m"]


def test_presets_say_which_of_them_ran_with_real_weights() -> None:
    assert [name for name, preset in names(kind="chat").items() if preset.tested] == sorted(RAN)


PRESET = """
format = "chatml"
source = "its card"
unread = {unread}
trained_context = 4096
[base]
kind = "hub"
repo = "a/b"
[context]
tokens = {tokens}
"""


def written(folder: Path, unread: str, tokens: int) -> Path:
    file = folder / "mine.toml"
    file.write_text(PRESET.format(unread=unread, tokens=tokens))
    return file


def test_facts_that_were_not_read_are_a_list_of_names(tmp_path: Path) -> None:
    assert check_preset(written(tmp_path, '["gate", "stop ids"]', 4096), tmp_path) == []
    preset: Preset = find("mine", tmp_path)
    assert preset.unread == ("gate", "stop ids") and preset.source == "its card"
    (mistake,) = check_preset(written(tmp_path, '["colour"]', 4096), tmp_path)
    assert mistake.line == 4 and mistake.text.startswith("`unread`: invalid enum value 'colour'")
    with pytest.raises(UsageError, match="colour"):
        find("mine", tmp_path)


def test_window_beyond_what_the_model_was_made_for_is_a_warning(tmp_path: Path) -> None:
    (mistake,) = check_preset(written(tmp_path, "[]", 8192), tmp_path)
    assert (mistake.line, mistake.fatal) == (10, False)
    assert "8,192" in mistake.text and "4,096" in mistake.text
