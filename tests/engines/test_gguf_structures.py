"""Answers with a structure from llama.cpp, on the real small model."""

import json
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace
from support.engine_contract import STORY, prompt

from llmchat.calls import ToolRequest
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.gguf import GgufEngine, structures
from llmchat.engines.guide.conformance import begins, conforms
from llmchat.errors import LlmchatError, UsageError
from llmchat.presets import find, get_format
from llmchat.prompt import Prompt, ThinkingMarks
from llmchat.reply import reply
from llmchat.reply_parser import ToolCalls
from llmchat.structure import Structure, from_choices, from_grammar, from_schema

pytest.importorskip("xllamacpp")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "born": {"type": "string", "format": "date"},
    },
    "required": ["name", "age", "born"],
    "additionalProperties": False,
}
STRUCTURES = [
    from_schema(PERSON),
    Structure("json"),
    Structure("regex", "[A-Z][a-z]{2,5}/[0-9]{2}\n"),
    from_choices(["yes", "no, never", 'a "quoted" one']),
    from_grammar('start: "<" word ("," word){1,2} ">"\nword: /[a-z]{1,4}/\n'),
]


def answer(
    engine: GgufEngine, structure: Structure, seed: int, *, most: int = 30, **thinking: Any
) -> tuple[str, Finish]:
    marks = ThinkingMarks("<think>", "</think>", **thinking) if thinking else None
    asked = prompt("Describe a fox.", thinking=marks)
    sampling = Sampling(temperature=2.0, seed=seed, max_tokens=most, structure=structure)
    *chunks, finish = engine.stream(asked, sampling)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda one: one.kind)
def test_answer_follows_each_kind_at_a_high_temperature(
    smol_engine: GgufEngine, structure: Structure
) -> None:
    structures.check_gguf(structure)
    for seed in range(2):
        text, finish = answer(smol_engine, structure, seed, most=10 if structure.is_json else 30)
        whole = conforms(structure, text)
        assert whole if finish.reason == "stop" else begins(structure, text), text
    # Free JSON need not end.
    assert finish.reason == "stop" or structure.is_json


def test_json_is_valid_for_an_independent_validator(smol_engine: GgufEngine) -> None:
    text, finish = answer(smol_engine, from_schema(PERSON), 7, most=80)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    assert finish.reason == "stop"
    jsonschema.validate(json.loads(text), PERSON, format_checker=checker)
    assert text.startswith('{"name": "'), "on one line, as our own engine writes"


def test_cut_answer_is_told(smol_engine: GgufEngine) -> None:
    text, finish = answer(smol_engine, from_schema(PERSON), 7, most=5)
    assert finish.reason == "length" and finish.reply_tokens == 5 and text.startswith('{"name"')


def thinking(engine: GgufEngine, closing: str, most: int) -> tuple[str, Finish]:
    """A greedy answer to a prompt within a thought, which `closing` ends."""
    marks = ThinkingMarks("<think>", closing, inside=True)
    sampling = Sampling(temperature=0, max_tokens=most, structure=from_choices(["yes", "no"]))
    *chunks, finish = engine.stream(prompt(STORY, thinking=marks), sampling)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


def test_grammar_begins_behind_the_mark_of_a_thought(smol_engine: GgufEngine) -> None:
    """The mark is a word that the small model writes soon."""
    text, finish = thinking(smol_engine, " the", 60)
    thought, mark, rest = text.partition(" the")
    assert finish.reason == "stop" and thought and mark and rest in ("yes", "no")


def test_cut_thought_has_no_answer(smol_engine: GgufEngine) -> None:
    text, finish = thinking(smol_engine, "</think>", 5)
    assert finish.reason == "length" and "</think>" not in text


def test_answer_can_open_a_thought_or_not(smol_engine: GgufEngine) -> None:
    choice = from_choices(["yes", "no"])
    assert answer(smol_engine, choice, 1, inside=False)[0] in ("yes", "no")
    fields = structures.either_fields(choice, "<think>", {})
    assert fields["grammar"].endswith('start: "<think>" | llmchat_structure\n')


def test_special_mark_is_named_by_its_id() -> None:
    fields = structures.either_fields(from_choices(["a"]), "<think>", {"<think>": 7})
    assert "start: <[7]> | llmchat_structure" in fields["grammar"]
    assert 'llmchat_structure: "a"' in fields["grammar"]


def test_answer_that_was_not_bound_is_an_error(
    smol_engine: GgufEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp says nothing of a grammar that its llguidance cannot compile."""
    monkeypatch.setattr(structures, "_STYLE", {"unknown_option": 1})
    with pytest.raises(LlmchatError, match=r"llama\.cpp did not follow the schema") as raised:
        answer(smol_engine, from_schema({"type": "null"}), 0, most=4)
    assert "--engine transformers" in raised.value.hint


def test_malformed_structure_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="uses `not`, which cannot be enforced"):
        structures.check_gguf(from_schema({"not": {}}))


def test_build_without_llguidance_gets_llama_cpps_own_grammars(
    smol_engine: GgufEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structures, "has_llguidance", lambda: False)
    for structure in (from_choices(["yes", "no"]), Structure("regex", "[A-Z]{3}-[0-9]{2}")):
        for seed in range(2):
            text, finish = answer(smol_engine, structure, seed, inside=False)
            assert finish.reason == "stop" and conforms(structure, text), text
    assert structures.structure_fields(Structure("json"), {}) == {"json_schema": {"type": "object"}}
    with pytest.raises(UsageError, match="cannot read Lark grammars"):
        structures.check_gguf(from_grammar('start: "a"'))
    with pytest.raises(UsageError, match="does not enforce `pattern`"):
        structures.check_gguf(from_schema({"type": "string", "pattern": "a"}))


def test_thought_that_ends_the_answer_is_closed(smol_engine: GgufEngine) -> None:
    """The model ends its turn without the mark, which is then written for it."""
    marks = ThinkingMarks("<think>", "</think>", inside=True)
    asked = Prompt(
        "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n", (), thinking=marks
    )
    sampling = Sampling(temperature=0, max_tokens=90, structure=from_choices(["yes", "no"]))
    *chunks, finish = smol_engine.stream(asked, sampling)
    text = "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk))
    assert text.endswith(("</think>yes", "</think>no"))
    assert isinstance(finish, Finish) and finish.reason == "stop"


def test_a_call_that_is_asked_for_is_made_and_fits_its_schema(smol_engine: GgufEngine) -> None:
    preset = replace(find("smollm2"), format=get_format("chatml"))
    parameters = {**PERSON, "properties": {**PERSON["properties"], "born": {"type": "boolean"}}}
    function = {"name": "store", "description": "Store a person.", "parameters": parameters}
    tools = ToolRequest(({"type": "function", "function": function},), "required", parallel=False)
    sampling = Sampling(temperature=1.0, seed=1, max_tokens=120)
    conversation = Conversation().say("Store Ada, who is 36.")
    events = list(reply(conversation, preset, smol_engine, sampling, tools))
    (call,) = (call for event in events if isinstance(event, ToolCalls) for call in event.calls)
    assert call.name == "store"
    jsonschema.validate(call.arguments, parameters)
