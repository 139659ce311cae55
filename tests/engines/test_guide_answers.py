"""Answers with a structure, of tiny models with random weights: they end valid or are cut."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from msgspec.structs import replace
from support.architectures import config_of
from support.checkpoints import save_tiny, tiny_config
from support.compiled_models import make_adapter, make_config
from support.guided import answer, open_tiny, together
from transformers import AutoModelForCausalLM

from llmchat.engines import Sampling
from llmchat.engines.guide import CannotGoOn, Guide
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import UsageError
from llmchat.prompt import Prompt
from llmchat.structure import (
    ANY_JSON,
    Structure,
    from_choices,
    from_grammar,
    from_regex,
    from_schema,
)

pytestmark = pytest.mark.usefixtures("one_thread")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["the fox", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORM = from_schema(PERSON)
HOT = Sampling(temperature=5, max_tokens=200, seed=1, structure=FORM)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), tiny_config(max_position_embeddings=512))


@pytest.fixture(scope="module", params=["torch", "compiled"])
def engine(request: pytest.FixtureRequest, base: Path, kernel_folder: Path) -> TransformersEngine:
    return open_tiny(base, kernel_folder if request.param == "compiled" else None, slots=4)


@pytest.fixture(scope="module")
def compiled_engine(base: Path, kernel_folder: Path) -> TransformersEngine:
    return open_tiny(base, kernel_folder, slots=4)


@pytest.mark.parametrize("temperature", [0, 0.7, 5])
@pytest.mark.parametrize("penalty", [1, 1.3])
def test_a_schema_holds_at_every_temperature(
    engine: TransformersEngine, temperature: float, penalty: float
) -> None:
    # A greedy random model would repeat a digit or a letter up to the bounds of the schema.
    for seed in range(8):
        sampling = replace(HOT, temperature=temperature, repetition_penalty=penalty, seed=seed)
        text, finish, _ = answer(engine, sampling)
        assert finish.reason == "stop"
        jsonschema.validate(json.loads(text), PERSON)


@pytest.mark.parametrize("filters", [{"top_k": 3}, {"top_p": 0.3}, {"min_p": 0.5}])
def test_filters_choose_among_what_is_allowed(
    engine: TransformersEngine, filters: dict[str, Any]
) -> None:
    text, finish, _ = answer(engine, replace(HOT, **filters))
    assert finish.reason == "stop"
    jsonschema.validate(json.loads(text), PERSON)


@pytest.mark.parametrize(
    ("structure", "pattern"),
    [
        (from_regex("(fox|dog){1,3}-[0-9]{2}"), r"(fox|dog){1,3}-[0-9]{2}"),
        (from_regex("^[äöü漢]{1,4}$"), r"[äöü漢]{1,4}"),
        (from_choices(["yes", "yes, sir", 'n"o\n']), 'yes|yes, sir|n"o\n'),
        (from_grammar('start: "(" start ")" | /[ab]{1,3}/'), r"\(*[ab]{1,3}\)*"),
    ],
    ids=["words", "characters of several bytes", "choice", "grammar"],
)
def test_other_structures_hold(
    engine: TransformersEngine, structure: Structure, pattern: str
) -> None:
    for seed in range(6):
        text, finish, _ = answer(engine, replace(HOT, structure=structure, seed=seed))
        assert finish.reason == "stop"
        assert re.fullmatch(pattern, text)
        assert text.count("(") == text.count(")")


def test_a_cut_answer_says_so(engine: TransformersEngine) -> None:
    text, finish, _ = answer(engine, replace(HOT, max_tokens=5))
    assert finish.reason == "length"
    assert finish.reply_tokens == 5
    assert text and text in '{"name": "'


def test_any_json_is_an_object(engine: TransformersEngine) -> None:
    text, finish, _ = answer(engine, replace(HOT, structure=ANY_JSON, seed=5))
    assert text.startswith("{")
    if finish.reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_stop_strings_still_end_an_answer(engine: TransformersEngine) -> None:
    text, finish, _ = answer(engine, replace(HOT, stops=('"age"',)))
    assert finish.reason == "stop"
    assert text.endswith(", ")


def test_tokens_beside_a_stop_token_are_never_left_out(engine: TransformersEngine) -> None:
    """An answer that may stop or go on does both: the stop token is one of the choices."""
    structure = from_regex("a{0,200}")
    ends = {
        answer(engine, replace(HOT, structure=structure, seed=seed))[1].reply_tokens
        for seed in range(24)
    }
    assert len(ends) > 2


def test_ignored_stop_tokens_leave_the_grammar_in_force(engine: TransformersEngine) -> None:
    text, finish, _ = answer(engine, replace(HOT, structure=from_regex("a{0,7}"), ignore_eos=True))
    assert (text, finish.reason) == ("aaaaaaa", "stop")


def test_an_unsupported_structure_is_refused_and_the_engine_stays_usable(
    engine: TransformersEngine,
) -> None:
    bad = replace(HOT, structure=from_schema({"not": {}}))
    with pytest.raises(UsageError, match="`not`"):
        answer(engine, bad)
    assert answer(engine, HOT)[1].reason == "stop"


def test_a_structure_that_becomes_too_complex_ends_its_answer_alone(
    compiled_engine: TransformersEngine,
) -> None:
    tangled = replace(HOT, structure=from_regex(r"(\w{1,200}\s?){1,5000}x"), seed=3)
    with pytest.raises(CannotGoOn, match="cannot be continued"):
        answer(compiled_engine, tangled)
    text = answer(compiled_engine, HOT)[0]
    begun = [
        compiled_engine.begin(Prompt("the quick brown fox", ()), one) for one in (tangled, HOT)
    ]
    assert together(compiled_engine, begun)[1] == text


@pytest.mark.parametrize("name", ["stablelm", "rwkv", "t5"])
def test_every_executor_keeps_to_a_schema(name: str, tmp_path: Path) -> None:
    """Also one that keeps a state in place of a cache, and one that writes in a decoder."""
    engine = open_tiny(save_tiny(tmp_path, config_of(name)))
    for seed in range(2):
        for logprobs in (0, 2):
            text, finish, _ = answer(engine, replace(HOT, seed=seed, logprobs=logprobs))
            assert finish.reason == "stop"
            jsonschema.validate(json.loads(text), PERSON)


# The numbers


def test_an_unconstrained_answer_beside_it_does_not_change_by_a_bit(
    compiled_engine: TransformersEngine,
) -> None:
    engine = compiled_engine
    free = Sampling(temperature=1.5, max_tokens=60, seed=7, logprobs=4)
    text, _, tokens = answer(engine, free, "jumps over")
    answers = [
        engine.begin(Prompt("jumps over", ()), free),
        *(engine.begin(Prompt("the dog", ()), replace(HOT, seed=seed)) for seed in range(3)),
    ]
    looked: list[Any] = []
    while not answers[0].done:
        running = [one for one in answers if not one.done]
        for one, events in zip(running, engine.step(running), strict=True):
            if one is answers[0]:
                looked += [token for event in events for token in getattr(event, "tokens", ())]
    assert looked == tokens
    for one in answers:
        one.close()
    assert text


def test_answers_together_are_those_of_each_alone(compiled_engine: TransformersEngine) -> None:
    samplings = [replace(HOT, seed=seed) for seed in range(4)]
    alone = [answer(compiled_engine, sampling, "the dog")[0] for sampling in samplings]
    begun = [compiled_engine.begin(Prompt("the dog", ()), sampling) for sampling in samplings]
    assert together(compiled_engine, begun) == alone


def test_live_adapters_apply_to_the_answers_that_chose_them(
    compiled_engine: TransformersEngine,
) -> None:
    engine = compiled_engine
    engine.adapters["tuned"] = make_adapter(make_config(), rank=4, seed=3)
    chosen = [(), (("tuned", 1.0),), (("tuned", 0.5),)]
    greedy = replace(HOT, temperature=0, max_tokens=40)

    def begin(adapters: Any) -> Any:
        return engine.begin(Prompt("the dog", ()), greedy, adapters)

    alone = [together(engine, [begin(adapters)])[0] for adapters in chosen]
    assert together(engine, [begin(adapters) for adapters in chosen]) == alone
    assert len(set(alone)) > 1
    del engine.adapters["tuned"]


@pytest.mark.parametrize("temperature", [0, 1])
def test_prompt_lookup_changes_no_token(
    base: Path, kernel_folder: Path, temperature: float
) -> None:
    """The text repeats the schema, so that drafts come and some are refused by the structure."""
    prompt = 'the fox: {"name": "the fox", "age": 12, "tags": ["the fox", "dog"]} ' * 3
    sampling = replace(HOT, temperature=temperature)
    texts = []
    for drafts in (True, False):
        engine = open_tiny(base, kernel_folder, drafts=drafts)
        texts.append([answer(engine, replace(sampling, seed=n), prompt) for n in range(6)])
    assert [(text, end.reply_tokens) for text, end, _ in texts[0]] == [
        (text, end.reply_tokens) for text, end, _ in texts[1]
    ]


def test_log_probabilities_are_those_of_all_tokens(engine: TransformersEngine) -> None:
    """With them, forced tokens are looked at one by one; the text is the same."""
    text, _, _ = answer(engine, HOT)
    looked, finish, tokens = answer(engine, replace(HOT, logprobs=400))
    assert looked == text
    assert len(tokens) == finish.reply_tokens
    assert b"".join(token.spelling for token in tokens).decode() == text
    unmasked = {spelling for spelling, _ in tokens[0].rivals}
    assert len(unmasked) > 200


def test_forced_tokens_change_no_greedy_answer(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without forcing, the mask leaves one token where there is no choice."""
    greedy = replace(HOT, temperature=0, max_tokens=60)
    prompts = ["the fox", "answer: ", "question"]
    forced = [answer(engine, greedy, prompt)[:2] for prompt in prompts]
    monkeypatch.setattr(Guide, "forced", lambda guide: [])
    chosen = [answer(engine, greedy, prompt)[:2] for prompt in prompts]
    assert [(text, end.reply_tokens) for text, end in chosen] == [
        (text, end.reply_tokens) for text, end in forced
    ]


def test_forced_tokens_draw_no_random_number(tmp_path: Path) -> None:
    """Of a model for which all tokens are equally likely, only the random number decides."""
    engine = open_tiny(save_flat(tmp_path))
    values: dict[str, list[str]] = {}
    for name in ("a", "a much longer name"):
        value = {"enum": [*"abcdefgh"]}
        schema = {"type": "object", "properties": {name: value}, "additionalProperties": False}
        sampling = replace(HOT, structure=from_schema(schema | {"required": [name]}))
        texts = [answer(engine, replace(sampling, seed=seed))[0] for seed in range(6)]
        values[name] = [json.loads(text)[name] for text in texts]
    assert values["a"] == values["a much longer name"]
    assert len({*values["a"]}) > 2


def save_flat(folder: Path) -> Path:
    save_tiny(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(folder)
    return folder
