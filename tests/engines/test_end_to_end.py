"""The whole way of each architecture: pulled from a Hub with its adapter, quantised, chatted with
for two turns, stopped by its end token.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.architectures import ARCHITECTURES, READS_ANEW, SEEDS, config_of
from support.checkpoints import save_adapter, save_tiny
from support.loopback_hub import Hub, Repo, serving
from support.tiny_checkpoints import save_case
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.engines import Chunk, Sampling
from llmchat.history import History
from llmchat.models.loading import load
from llmchat.models.locate import locate, provenance
from llmchat.models.pulling import plan_pull, pull
from llmchat.output.progress import NoProgress
from llmchat.presets import names, preset_for
from llmchat.settings import Options

# One of each class that the presets name; the variants of a class are compared with transformers
# beside this file.
CLASSES = {
    "LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral", "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2", "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3", "Phi3ForCausalLM": "phi3",
    "SmolLM3ForCausalLM": "smollm3", "GPTNeoXForCausalLM": "gpt-neox", "GPTJForCausalLM": "gpt-j",
    "GPTBigCodeForCausalLM": "gpt-bigcode",
    "GPT2LMHeadModel": "gpt2", "FalconForCausalLM": "falcon 7b", "MptForCausalLM": "mpt",
    "BloomForCausalLM": "bloom",
    "StableLmForCausalLM": "stablelm", "T5ForConditionalGeneration": "t5",
    "RwkvForCausalLM": "rwkv",
}  # fmt: skip
# The same for the classes of 2025 and 2026, by their cases in support.tiny_families.
CLASSES_OF_TODAY = {
    "ApertusForCausalLM": "apertus", "Cohere2ForCausalLM": "cohere2",
    "Ernie4_5ForCausalLM": "ernie4.5", "Ernie4_5_MoeForCausalLM": "ernie4.5-moe",
    "Exaone4ForCausalLM": "exaone4", "FalconH1ForCausalLM": "falcon-h1",
    "Gemma3nForConditionalGeneration": "gemma3n", "Gemma4ForConditionalGeneration": "gemma4",
    "Gemma4UnifiedForConditionalGeneration": "gemma4",
    "Glm4ForCausalLM": "glm4", "GlmForCausalLM": "glm",
    "Glm4MoeForCausalLM": "glm4-moe", "Glm4MoeLiteForCausalLM": "glm4-moe-lite",
    "GptOssForCausalLM": "gpt-oss", "GraniteMoeHybridForCausalLM": "granite-moe-hybrid",
    "HunYuanDenseV1ForCausalLM": "hunyuan", "HunYuanMoEV1ForCausalLM": "hunyuan-moe",
    "KimiLinearForCausalLM": "kimi-linear",
    "Lfm2ForCausalLM": "lfm2", "Lfm2MoeForCausalLM": "lfm2-moe",
    "Llama4ForConditionalGeneration": "llama4", "Mistral3ForConditionalGeneration": "ministral3",
    "NemotronHForCausalLM": "nemotron-h",
    "Olmo3ForCausalLM": "olmo3", "Qwen3MoeForCausalLM": "qwen3-moe",
    "Qwen3NextForCausalLM": "qwen3-next", "Qwen3_5ForConditionalGeneration": "qwen3.5",
    "Qwen3_5MoeForConditionalGeneration": "qwen3.5-moe", "SeedOssForCausalLM": "seed-oss",
    "RWKV7ForCausalLM": "rwkv7",
}  # fmt: skip


def test_every_class_that_a_preset_names_goes_the_way() -> None:
    chats = names(kind="chat").values()
    named = {preset.architecture for preset in chats if not preset.unsupported}
    # tests/engines/families/test_chatglm.py goes it with its own code's files.
    assert named == {*CLASSES, *CLASSES_OF_TODAY, "ChatGLMForConditionalGeneration"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", dict.fromkeys(CLASSES.values()))
def test_pull_quantise_adapt_chat_stop_and_go_on(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", config_of(name), seed=SEEDS.get(name, 3))
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=ARCHITECTURES[name][2])
    go_the_way(base, adapter, tmp_path, reads_anew=name in READS_ANEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", dict.fromkeys(CLASSES_OF_TODAY.values()))
def test_families_of_today_go_the_same_way(name: str, tmp_path: Path) -> None:
    base = save_case(name, tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["q_proj", "o_proj"], std=0.5)
    go_the_way(base, adapter, tmp_path, reads_anew=False)


def go_the_way(base: Path, adapter: Path, tmp_path: Path, *, reads_anew: bool) -> None:
    with serving(
        Hub({"org/base": Repo.of_folder(base), "org/adapter": Repo.of_folder(adapter)})
    ) as hub:
        world = make_world(tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
        preset = preset_for(
            Options(model="org/base", adapter="org/adapter", weights="int8", device="cpu")
        )
        pull(plan_pull(preset, world), world, NoProgress())
    model = locate(preset, world)
    engine = load(model, Options(device="cpu"))
    assert "int8" in engine.describe() and provenance(model)["adapters"] == [
        "org/adapter@" + "a" * 40
    ]
    chat = Chat(model.preset, engine, History(None), Sampling(temperature=0, max_tokens=8))

    first = say(chat, "the quick brown fox")
    second = say(chat, "and the answer is?")
    assert chat.finish and chat.finish.reason in ("stop", "length")
    assert (chat.finish.cached_tokens > 0) != reads_anew, (
        "a second turn reads only what is new, where the architecture can"
    )
    cold = load(model, Options(device="cpu"))
    again = Chat(model.preset, cold, chat.history, chat.sampling, session=chat.session)
    assert (
        "".join(event.text for event in again.regenerate() if isinstance(event, Chunk)) == second
    ), "warm and cold caches say the same"
    bare = Chat(
        model.preset,
        load(replace(model, adapters=()), Options(device="cpu")),
        History(None),
        chat.sampling,
    )
    assert say(bare, "the quick brown fox") != first, "the adapter changes what is said"

    ending = chat_that_ends_at_once(model.preset, engine)
    assert (say(ending, "the quick brown fox"), ending.finish.reason if ending.finish else "") == (
        "",
        "stop",
    )


def say(chat: Chat, text: str) -> str:
    return "".join(event.text for event in chat.send(text) if isinstance(event, Chunk))


def chat_that_ends_at_once(preset: object, engine: object) -> Chat:
    """A chat whose format says that the very token the model begins with ends an answer."""
    from llmchat.presets import Preset

    assert isinstance(preset, Preset)
    chat = Chat(preset, engine, History(None), Sampling(temperature=0, max_tokens=4))  # type: ignore[arg-type]
    ids = engine.encode(preset.format.render(chat.conversation.say("the quick brown fox").spoken))  # type: ignore[attr-defined]
    first = int(engine.logits(ids).argmax())  # type: ignore[attr-defined]
    chat.preset = replace(preset, format=replace(preset.format, stop_ids=(first,)))
    return chat
