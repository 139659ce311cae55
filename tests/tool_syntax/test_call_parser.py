"""Calls in an answer: found wherever the text is cut, and text that is no call stays text."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.calls import ToolRequest
from llmchat.tool_syntax.call_parser import CallParser
from llmchat.tool_syntax.table import DIALECTS, GENERIC, PLAIN

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}

Calls = list[tuple[str, dict[str, Any]]]


def read(dialect: Any, *pieces: str) -> tuple[str, Calls]:
    """The text that is shown, and name and arguments of the calls."""
    parser = CallParser(dialect, ToolRequest((WEATHER, TIME)))
    parts = [*(parser.feed(piece) for piece in pieces), parser.flush()]
    calls = [(call.name, call.arguments) for _, calls in parts for call in calls]
    return "".join(text for text, _ in parts), calls


def cut(text: str, step: int) -> list[str]:
    return [text[start : start + step] for start in range(0, len(text), step)]


@given(st.lists(st.integers(0, 200), max_size=6))
def test_calls_are_found_wherever_the_text_is_cut(cuts: list[int]) -> None:
    text = f"Let me look.\n{CALL}\n{CALL.replace('Paris', 'Rome')} Done."
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    shown, calls = read(GENERIC, *(text[a:b] for a, b in itertools.pairwise(edges)))
    assert shown == "Let me look.\n\n Done."
    assert calls == [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})]


def test_every_call_has_an_id_of_its_own() -> None:
    parser = CallParser(GENERIC, ToolRequest((WEATHER,)))
    _, calls = parser.feed(CALL + CALL)
    assert len({call.id for call in calls}) == 2


HARMONY_CALL = (
    '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}'
)
ANSWERS = {
    "harmony": [
        HARMONY_CALL,
        "<|start|>assistant<|channel|>commentary to=functions.weather json<|message|>"
        '{"city": "Paris"}<|call|>',
        "<|start|>assistant to=functions.weather<|channel|>commentary <|constrain|>json<|message|>"
        '{"city": "Paris"}',
    ],
    "deepseek-v3.1": [
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
        '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    ],
    "deepseek-v3": [
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    ],
    "seed-oss": [
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Paris</parameter>\n</function>\n"
        "</seed:tool_call>"
    ],
    "kimi-k2": [
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:12"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>'
    ],
    "apertus": ['<|tools_prefix|>[{"weather": {"city": "Paris"}}]<|tools_suffix|>'],
    "command-r7b": [
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
        '{"city": "Paris"}}\n]<|END_ACTION|>'
    ],
    "nemotron-nano-2": [
        '<TOOLCALL>[{"name": "weather", "arguments": {"city": "Paris"}}]</TOOLCALL>'
    ],
    "qwen3-coder": [
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "</tool_call>",
        "<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
    ],
    "functionary-3.1": ['<function=weather>{"city": "Paris"}</function>'],
    "functionary-3.2": ['weather\n{"city": "Paris"}', '>>>weather\n{"city": "Paris"}'],
    "minicpm5": [
        '<function name="weather"><param name="city">Paris</param></function>',
        '<function name="weather"><param name="city"><![CDATA[Paris]]></param></function>',
    ],
    "glm-4.5": [
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>",
    ],
    "glm-4": ['weather\n{"city": "Paris"}', '\nweather\n{"city": "Paris"}'],
    "gemma-4": ['<|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>'],
    "functiongemma": [
        "<start_function_call>call:weather{city:<escape>Paris<escape>}<end_function_call>"
    ],
    "lfm2": ['<|tool_call_start|>[weather(city="Paris")]<|tool_call_end|>'],
    "olmo-3": ["<function_calls>weather(city='Paris')</function_calls>"],
    "mistral": [
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}',
        '[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}',
    ],
    "mistral-7": ['[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "abc"}]'],
    "phi-4-mini": [
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|/tool_call|>'
    ],
    "granite-3": ['<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]'],
    "hermes": [CALL, '<tool_call>{"arguments": {"city": "Paris"}, "name": "weather"}</tool_call>'],
    "llama-pythonic": ["[weather(city='Paris')]", '[ weather( city = "Paris" ) ]'],
    "llama-3": [
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}',
        '{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}',
    ],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_family_is_read_however_the_answer_is_cut(name: str) -> None:
    for text in ANSWERS[name]:
        for step in (1, 3, len(text)):
            assert read(BY_NAME[name], *cut(text, step)) == ("", [("weather", {"city": "Paris"})])


def test_there_is_an_answer_for_every_dialect() -> None:
    assert set(ANSWERS) == set(BY_NAME)


SEVERAL = {
    "hermes": CALL + '\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
    "mistral": '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]time[ARGS]{}',
    "mistral-7": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}, '
    '{"name": "time", "arguments": {}}]',
    "llama-3": '{"name": "weather", "parameters": {"city": "Paris"}}; '
    '{"name": "time", "parameters": {}}',
    "llama-pythonic": "[weather(city='Paris'), time()]",
    "olmo-3": "<function_calls>weather(city='Paris')\ntime()</function_calls>",
    "deepseek-v3.1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
    '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{}'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "functionary-3.2": 'weather\n{"city": "Paris"}>>>time\n{}',
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_calls_in_one_answer(name: str) -> None:
    for step in (1, 1000):
        shown, calls = read(BY_NAME[name], *cut(SEVERAL[name], step))
        assert (shown.strip(), calls) == ("", [("weather", {"city": "Paris"}), ("time", {})])


@pytest.mark.parametrize(
    "value",
    ["'", '"', "a\nb", "\\", "{}", "</tool_call>", "[1]", "漢 🗼", "a=1, b=2)", "None", "12"],
)
def test_arguments_with_marks_and_quotes_are_read_whole(value: str) -> None:
    written = json.dumps(value)
    answers = {
        "hermes": f'<tool_call>\n{{"name": "weather", "arguments": {{"city": {written}}}}}'
        "\n</tool_call>",
        "lfm2": f"<|tool_call_start|>[weather(city={written})]<|tool_call_end|>",
        "olmo-3": f"<function_calls>weather(city={value!r})</function_calls>",
        "gemma-4": f'<|tool_call>call:weather{{city:<|"|>{value}<|"|>}}<tool_call|>',
        "mistral": f'[TOOL_CALLS]weather[ARGS]{{"city": {written}}}',
        "llama-3": f'{{"name": "weather", "parameters": {{"city": {written}}}}}',
    }
    for name, text in answers.items():
        for step in (1, 7):
            read_back = read(BY_NAME[name], *cut(text, step))
            assert read_back == ("", [("weather", {"city": value})]), name


def test_values_without_quotes_are_typed_by_the_schema() -> None:
    text = (
        "<function=weather>\n<parameter=city>\n12\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
    )
    assert read(BY_NAME["qwen3-coder"], text)[1] == [("weather", {"city": "12", "days": 3})]


def test_python_spells_its_own_constants() -> None:
    text = "[weather(days=None, city='x', other=[True, {'a': False}, true])]"
    found = read(BY_NAME["llama-pythonic"], text)[1]
    assert found == [("weather", {"days": None, "city": "x", "other": [True, {"a": False}, True]})]


def test_harmony_shows_the_final_message_without_its_marks() -> None:
    text = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final"
    assert read(BY_NAME["harmony"], *cut(text + "<|message|>Sunny.", 1)) == ("I look.Sunny.", [])


def test_functionary_shows_text_for_all() -> None:
    shown = read(BY_NAME["functionary-3.2"], *cut("all\nI look.>>>time\n{}", 1))
    assert shown == ("I look.", [("time", {})])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>no json</tool_call>",
        '<tool_call>{"name": "unknown"}</tool_call>',
        "no call at all",
        "<tool_call>[1]</tool_call>",
        "",
        '<tool_call>{"name": "weather", "argu',
        '<tool_call>{"name": "weather", "arguments": "text"}</tool_call>',
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    assert read(GENERIC, text) == read(GENERIC, *text) == (text, [])


@pytest.mark.parametrize("dialect", [GENERIC, PLAIN], ids=["marks", "bare"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        '[{"name": "weather", "arguments": {"city": "Paris"}}]',
        '\n {"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
        '{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}',
        '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```',
        '\n```\n[{"name": "weather", "parameters": {"city": "Paris"}}]\n```\n',
        '```tool_call\n{"name": "weather", "arguments": {"city": "Paris"}}```',
    ],
)
def test_bare_and_fenced_json_are_calls_whatever_the_template_teaches(
    dialect: Any, text: str
) -> None:
    for pieces in ([text], list(text)):
        assert read(dialect, *pieces) == ("", [("weather", {"city": "Paris"})])


@pytest.mark.parametrize("dialect", [GENERIC, PLAIN], ids=["marks", "bare"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": ["weather"]}',
        '{"name": {"a": 1}}',
        '{"name": "other", "arguments": {}}',
        "[" * 20_000,
        '{"a":' * 20_000,
        '```python\nprint("weather")\n```',
        '```json\n{"city": "Paris"}\n```',
        '{"name": "weather", "arguments": NaN}',
        "``",
        "[1, 2] and more",
        "{not json}",
        "9" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_json_that_calls_no_offered_function_is_text(dialect: Any, text: str) -> None:
    assert read(dialect, text) == (text, [])
    assert read(dialect, *text[:2000]) == (text[:2000], [])
    inside = f"<tool_call>{text}</tool_call>"
    assert read(GENERIC, inside) == (inside, [])


def test_an_answer_in_json_is_shown_as_soon_as_it_is_no_call() -> None:
    parser = CallParser(GENERIC, ToolRequest((WEATHER,)))
    assert parser.feed('{"cit') == ('{"cit', ())


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_calls_in_fences_within_text(step: int) -> None:
    block = '```json\n{\n  "name": "weather",\n  "arguments": {"city": "Paris"}\n}\n```'
    shown, calls = read(GENERIC, *cut(f"I look:\n{block}\n{block}\nDone. ```x```", step))
    assert calls == [("weather", {"city": "Paris"})] * 2
    assert shown.split() == ["I", "look:", "Done.", "```x```"]
    other = 'So:\n```json\n{"name": "Ann"}\n```\n```python\nprint({})\n``` end'
    assert read(GENERIC, *cut(other, step)) == (other, [])


def test_json_is_no_call_where_answers_have_a_structure() -> None:
    text = '{"name": "weather", "arguments": {}}'
    parser = CallParser(GENERIC, ToolRequest((WEATHER,), structured=True))
    assert parser.feed(text) == (text, ()) and parser.feed(CALL)[1]


def test_a_lone_surrogate_in_an_argument_is_replaced() -> None:
    _, calls = read(GENERIC, '{"name": "weather", "arguments": {"city": "\\ud83d"}}')
    assert calls == [("weather", {"city": "\ufffd"})]


def test_a_long_call_is_not_parsed_again_at_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    def counting(parser: CallParser, *, final: bool) -> Any:
        nonlocal parsed
        parsed += 1
        return advance(parser, final=final)

    advance = CallParser._advance
    monkeypatch.setattr(CallParser, "_advance", counting)
    text = "x" * 200_000
    call = f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{text}"}}}}\n</tool_call>'
    assert read(GENERIC, *cut(call, 4)) == ("", [("weather", {"city": text})])
    # At the pieces of its first 400 characters, and at those that can end it.
    assert parsed < 400 / 4 + 10


@given(
    st.sampled_from([*DIALECTS, PLAIN]),
    st.text(alphabet="{}[]\"'`:, \\nametool_<>/1()=|", max_size=60),
    st.integers(1, 7),
)
def test_no_text_is_lost(dialect: Any, text: str, step: int) -> None:
    shown, calls = read(dialect, *cut(text, step))
    assert calls or shown == text or any(drop.strip() in text for drop in dialect.drops)
