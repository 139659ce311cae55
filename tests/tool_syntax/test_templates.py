"""Each family's template, our grammar and our parser agree on how calls are written."""

from typing import Any

import pytest
from support.grammar_walks import Grammars
from support.tool_templates import TEMPLATES

from llmchat import chat_template
from llmchat.calls import Call, ToolRequest
from llmchat.conversation import Message
from llmchat.presets import find, get_format
from llmchat.prompt import PromptFormat
from llmchat.tool_syntax import dialect_of
from llmchat.tool_syntax.call_parser import CallParser
from llmchat.tool_syntax.grammar import answer_grammar
from llmchat.tool_syntax.table import DIALECTS

PLACE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "at": {"type": "array", "items": {}}},
    "required": ["name"],
    "additionalProperties": False,
}
PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "metric": {"type": "boolean"},
    "places": {"type": "array", "items": PLACE},
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": PROPERTIES, "required": ["city"]},
    },
}
ASKED = ToolRequest((WEATHER,), "required")
BEFORE = (Message("user", "Weather?"),)


def form_of(name: str) -> PromptFormat:
    """The family's format, for a tokenizer that has all of its marks as special tokens."""
    template = TEMPLATES[name]
    return get_format("template").with_template(template, {}, chat_template.labels(template))


def written(name: str, *calls: Call) -> str:
    """An answer with these calls as the template writes it, without the marks of its turn."""
    form = form_of(name)
    answer = Message("assistant", "", calls=tuple(call.as_openai() for call in calls))
    prompt = form.render(BEFORE).text
    record = form.render((*BEFORE, answer)).text
    assert record.startswith(prompt)
    text = record[len(prompt) :].rstrip()
    for end in ("<|im_end|>", "<turn|>", "<end_of_turn>", "</s>", "<|end|>", "<|end_of_text|>",
                "<｜end▁of▁sentence｜>", "<|eot_id|>", "<|call|>", "<seed:eos>",
                "<|assistant_end|>", "<|END_OF_TURN_TOKEN|>", "<SPECIAL_12>"):  # fmt: skip
        text = text.removesuffix(end)
    return text


def read(name: str, text: str) -> tuple[str, list[dict[str, Any]]]:
    parser = CallParser(dialect_of(form_of(name)), ASKED)
    parts = [*(parser.feed(character) for character in text), parser.flush()]
    calls = [call.arguments for _, calls in parts for call in calls]
    return "".join(shown for shown, _ in parts), calls


ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Paris"},
    {"city": "Paris", "days": 3, "metric": True},
    {"city": "a \"quoted\" 'word' and a \\ backslash"},
    {"city": "two\nlines\n\nand a tab\t"},
    {"city": "漢字, emoji 🗼 and é"},
    {"city": "{braces}, [brackets], (a=1) and commas, : ; |"},
    {"city": "None"},
    {"city": "12"},
    {"city": "x", "places": [{"name": "a", "at": [1, 2.5]}, {"name": "b, c: {d}"}]},
    {"city": "x", "places": []},
]
# Marks in strings: a notation without quotes cannot write its own closing mark in a value.
MARKS = {"city": "</tool_call> [TOOL_CALLS] <|tool_call_end|> <tool_call|> </function_calls>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_is_allowed_and_read_back(name: str) -> None:
    form = form_of(name)
    grammars, dialect = Grammars(), dialect_of(form)
    assert dialect.name == name
    grammar = answer_grammar(dialect, ASKED, None)
    for arguments in [*ARGUMENTS, *([] if dialect.notation == "gemma" else [MARKS])]:
        text = written(name, Call("call00001", "weather", arguments))
        begun = text.removeprefix("<|start|>assistant") if name == "harmony" else text
        shown, calls = read(name, begun)
        assert (shown.strip(), calls) == ("", [arguments]), text
        assert grammars.accepts(grammar, begun), text


@pytest.mark.parametrize("name", [one for one in TEMPLATES if one not in ("glm-4", "harmony")])
def test_several_calls_are_allowed_and_read_back(name: str) -> None:
    arguments = [{"city": "Paris"}, {"city": "Rome", "days": 2}]
    text = written(name, *(Call(f"call0000{n}", "weather", one) for n, one in enumerate(arguments)))
    assert Grammars().accepts(answer_grammar(dialect_of(form_of(name)), ASKED, None), text)
    shown, calls = read(name, text)
    assert (shown.strip(), calls) == ("", arguments)


@pytest.mark.parametrize("name", TEMPLATES)
def test_definitions_calls_and_results_are_in_the_prompt(name: str) -> None:
    from msgspec.structs import replace

    from llmchat.tool_syntax import prepare

    preset, structure = prepare(replace(find("smollm2"), format=form_of(name)), ASKED)
    call = Call("call00001", "weather", {"city": "Paris"})
    text = preset.format.render(
        (*BEFORE, Message("assistant", "", calls=(call.as_openai(),)),
         Message("tool", "It is sunny.", call_id=call.id))
    ).text  # fmt: skip
    assert "Of a city." in text and "Paris" in text.partition("Of a city.")[2]
    assert "It is sunny." in text.partition("Paris")[2]
    assert structure is not None and structure.kind == "grammar"


def test_every_dialect_has_a_template() -> None:
    assert set(TEMPLATES) == {dialect.name for dialect in DIALECTS}
