"""How much a model thinks, told to each kind of chat template in its own way."""

from typing import Any

import pytest
from msgspec.structs import replace

from llmchat import thinking
from llmchat.conversation import Conversation
from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets import find, get_format

TURNS = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
# The relevant lines of published templates: Qwen3, DeepSeek V3.1, gpt-oss, Qwen3.8, Seed-OSS,
# Nemotron Nano 2, QwQ, and of one without thoughts.
QWEN3 = TURNS + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}"
)
DEEPSEEK = TURNS + "{% if thinking %}<think>{% else %}</think>{% endif %}"
GPT_OSS = "Reasoning: {{ reasoning_effort or 'medium' }}" + TURNS + "{{ message.thinking }}"
QWEN38 = QWEN3 + (
    "{% if reasoning_effort not in ['low', 'medium', 'xhigh'] %}{{ raise_exception('x') }}"
    "{% endif %}"
)
SEED = TURNS + "{% if thinking_budget == 0 %}<seed:think></seed:think>{% endif %}"
NEMOTRON = TURNS + (
    "{% if '/no_think' in messages[0].content %}<think></think>{% else %}<think>\n{% endif %}"
)
QWQ = TURNS + "<think>\n"
PLAIN = TURNS + "I am thinking of a reasoning_effort."
HELLO = Conversation().instruct("Be brief.").say("Hello")


def told(template: str, **options: Any) -> tuple[str, Sampling]:
    """The prompt that a template makes with these options, and the sampling that is left."""
    form = get_format("template").with_template(template, {})
    preset = replace(find("qwen3-4b"), format=form)
    preset, sampling, conversation = thinking.applied(preset, Sampling(**options), HELLO)
    assert sampling.think is None
    (question,) = conversation.spoken
    system = replace(question, role="system", text=conversation.system)
    return preset.format.render((system, question)).text, sampling


@pytest.mark.parametrize(
    ("template", "level", "found"),
    [
        (QWEN3, "off", {"enable_thinking": False}),
        (QWEN3, "on", {"enable_thinking": True}),
        (QWEN3, "low", {"enable_thinking": True}),
        (DEEPSEEK, "off", {"thinking": False}),
        (DEEPSEEK, "high", {"thinking": True}),
        (GPT_OSS, "on", {}),
        (GPT_OSS, "low", {"reasoning_effort": "low"}),
        (GPT_OSS, "off", None),
        (QWEN38, "off", {"enable_thinking": False}),
        (QWEN38, "on", {"enable_thinking": True}),
        (QWEN38, "medium", {"enable_thinking": True, "reasoning_effort": "medium"}),
        (QWEN38, "high", {"enable_thinking": True, "reasoning_effort": "xhigh"}),
        (SEED, "off", {"thinking_budget": 0}),
        (SEED, "on", {"thinking_budget": -1}),
        (SEED, "low", {"thinking_budget": 512}),
        (NEMOTRON, "off", None),
        (QWQ, "off", None),
        (PLAIN, "low", None),
        (None, "low", None),
    ],
)
def test_a_level_in_the_variables_of_a_template(
    template: str | None, level: str, found: dict[str, Any] | None
) -> None:
    assert thinking.variables(template, level) == found


@pytest.mark.parametrize(
    ("template", "level", "end"),
    [
        (QWEN3, "off", "Hello<think>\n\n</think>\n\n"),
        (QWEN3, "on", "Hello"),
        (DEEPSEEK, "off", "Hello</think>"),
        (DEEPSEEK, "on", "Hello<think>"),
        (SEED, "off", "<seed:think></seed:think>"),
        (NEMOTRON, "off", "<system>Be brief. /no_think<user>Hello<think></think>"),
        (NEMOTRON, "on", "<system>Be brief. /think<user>Hello<think>\n"),
        (PLAIN, "off", "reasoning_effort."),
    ],
)
def test_a_level_in_the_prompt(template: str, level: str, end: str) -> None:
    text, sampling = told(template, think=level)
    assert text.endswith(end) and sampling == Sampling()


def test_a_model_that_always_thinks_closes_its_thought_at_once() -> None:
    text, sampling = told(QWQ, think="off")
    assert text.endswith("<think>") and sampling == Sampling(think_budget=0)
    assert told(QWQ, think="on") == (text, Sampling())


def test_a_template_with_a_budget_is_told_it() -> None:
    text, sampling = told(SEED, think_budget=0)
    assert text.endswith("<seed:think></seed:think>") and sampling.think_budget == 0


@pytest.mark.parametrize(
    ("template", "level", "message"),
    [
        (PLAIN, "on", "qwen3-4b does not think: its prompt format has no place for thoughts"),
        (PLAIN, "high", "qwen3-4b does not think"),
        (QWQ, "low", "qwen3-4b thinks without levels, so thinking cannot be low"),
        (GPT_OSS, "off", "qwen3-4b always thinks, so thinking cannot be off"),
    ],
)
def test_a_level_that_cannot_be_told_is_one_clear_line(
    template: str, level: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        told(template, think=level)


def test_values_of_a_request_go_before_a_level() -> None:
    form = get_format("template").with_template(QWEN3, {"enable_thinking": "as asked"})
    preset = replace(find("qwen3-4b"), format=form)
    preset, _, _ = thinking.applied(preset, Sampling(think="off"), HELLO)
    assert preset.format.template_tokens == {"enable_thinking": "as asked"}


@pytest.mark.parametrize("template", [PLAIN, "{# thinking #}", "{{ message.thinking }}", None])
def test_text_and_attributes_are_no_variables(template: str | None) -> None:
    assert not thinking.uses_variable(template, "thinking")
    assert not thinking.uses_variable(template, "reasoning_effort")
