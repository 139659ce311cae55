"""The transformers engine on the real default model.

It chooses the tokens of transformers and peft; its cache changes nothing; int8 costs no quality.
"""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from basics import TEXT, perplexity_of
from support.checkpoints import save_adapter
from transformers import AutoModelForCausalLM

from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.plain_checkpoint import write_plain
from llmchat.engines.transformers.weights import open_tensors
from llmchat.models.loading import load
from llmchat.models.locate import Model, locate
from llmchat.presets import preset_for
from llmchat.prompt import Prompt
from llmchat.reply import reply
from llmchat.settings import Options, World
from llmchat.settings.types import Weights
from llmchat.structure import from_schema


@pytest.fixture
def model(smol_world: World) -> Model:
    return locate(preset_for(Options()), smol_world)


def engine(model: Model, weights: Weights, *adapters: Path) -> TransformersEngine:
    assert model.base
    return TransformersEngine(model.base.path, adapters, weights=weights, device="cpu")


def greedy(one: TransformersEngine, ids: list[int], count: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < count:
        tokens.append(int(one.logits(ids + tokens).argmax()))
    return tokens


@pytest.mark.slow
def test_with_an_adapter_every_token_is_that_of_transformers_and_peft(
    model: Model, tmp_path: Path
) -> None:
    import peft

    assert model.base
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    plain = tmp_path / "plain"
    plain.mkdir()
    write_plain(model.base.path, plain)
    adapter = save_adapter(
        tmp_path / "adapter", plain, std=0.03, r=8, lora_alpha=16, target_modules=targets
    )
    prompt = Prompt(
        "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n",
        (),
        bos=False,
    )
    ours = engine(model, "fp32", adapter)
    ids = ours.encode(prompt)
    base = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    exact = open_tensors(model.base.path, ())
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(exact.get(name))
    theirs = peft.PeftModel.from_pretrained(base, adapter)
    question = torch.tensor([ids])
    # Without this mask generate() takes <|im_end|> in the prompt for padding: the ids are equal.
    answer = theirs.generate(
        question,
        attention_mask=torch.ones_like(question),
        min_new_tokens=48,
        max_new_tokens=48,
        do_sample=False,
    )
    expected = answer[0].tolist()[len(ids) :]
    assert greedy(ours, ids, 48) == expected
    assert greedy(engine(model, "fp32"), ids, 48) != expected, "the adapter matters"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_int8_costs_at_most_one_percent_of_perplexity(model: Model) -> None:
    """In the compiled step, as users run it, against fp32. torch's products of bf16 take over ten
    minutes on a processor that has none.
    """
    int8 = perplexity_of(load(model, Options(device="cpu", weights="int8")))
    fp32 = perplexity_of(engine(model, "fp32"))
    assert int8 <= 1.01 * fp32, f"int8 {int8:.3f}, fp32 {fp32:.3f}"
    assert fp32 < 60, "the model reads English"


@pytest.mark.slow
def test_a_cached_turn_has_the_logits_of_a_cold_prefill(model: Model) -> None:
    for weights, tolerance in (("fp32", 1e-3), ("int8", 0.05)):
        warm, cold = (engine(model, weights) for _ in range(2))  # type: ignore[arg-type]
        ids = warm.encode(Prompt(TEXT.read_text("utf-8"), ()))[:200]
        warm.logits(ids[:90])
        warm.logits([*ids[:50], 400, 401, 402])
        difference = (warm.logits(ids) - cold.logits(ids)).norm() / cold.logits(ids).norm()
        assert difference < tolerance, f"{weights}: {difference}"


@pytest.mark.slow
def test_turn_ten_reads_only_its_new_tokens(model: Model, smol_world: World) -> None:
    one = load(model, Options(device="cpu"))
    talk, read = Conversation(), []
    for number in range(10):
        talk = talk.say(f"Tell me one short fact about the number {number + 10}, please.")
        *events, finish = reply(talk, model.preset, one, Sampling(temperature=0, max_tokens=16))
        talk = talk.answer("".join(event.text for event in events if isinstance(event, Chunk)))
        assert isinstance(finish, Finish)
        read.append(finish.prompt_tokens - finish.cached_tokens)
    assert max(read[1:]) <= 45, f"a question is 20 tokens, the frame around it a dozen: {read}"


CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "country": {"enum": ["France", "Italy", "Spain"]},
        "founded": {"type": "string", "format": "date"},
        "sights": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 3},
    },
    "required": ["city", "country", "founded", "sights"],
    "additionalProperties": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 1, 5])
def test_answers_of_the_default_model_follow_a_schema(model: Model, temperature: float) -> None:
    """With the compiled step, forced tokens and prompt lookup, as users run it."""
    one = load(model, Options(device="cpu"))
    prompt = model.preset.format.render([Message("user", "Tell me about Paris, in JSON.")])
    for seed in range(4):
        sampling = Sampling(
            temperature=temperature, seed=seed, max_tokens=300, structure=from_schema(CITY)
        )
        *chunks, finish = one.stream(prompt, sampling)
        assert isinstance(finish, Finish) and finish.reason == "stop"
        text = "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk))
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.validate(json.loads(text), CITY, format_checker=checker)
        if temperature == 0:
            assert json.loads(text)["country"] == "France"
