"""The templates of published models: what we render is what transformers renders, character for
character, and thoughts, tools and levels are found in them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from support.published_templates import published_template, published_templates

from llmchat import chat_template, thinking, tool_records
from llmchat.conversation import Message
from llmchat.presets import find, get_format
from llmchat.prompt import PromptFormat
from llmchat.thought_marks import CHANNELS, THINK
from llmchat.tool_syntax import dialect_of

pytestmark = pytest.mark.slow
Published = Callable[[str], str]
GEMMA = ("<|channel>thought\n", "<channel|>")
SEED = ("<seed:think>", "</seed:think>")
MISTRAL = ("[THINK]", "[/THINK]")
COMMAND = ("<|START_THINKING|>", "<|END_THINKING|>")
APERTUS = ("<|inner_prefix|>", "<|inner_suffix|>")
# Template → a preset that uses it, the marks of its thoughts and whether the prompt opens one,
# the syntax of its calls ("" without tools), and its variables for thinking off.
ALWAYS: dict[str, Any] | None = None
OFF: dict[str, Any] = {"enable_thinking": False}
FACTS: dict[str, tuple[str, tuple[str, str] | None, bool, str, dict[str, Any] | None]] = {
    "Qwen3.5-4B": ("qwen3.5-4b", THINK, True, "qwen3-coder", OFF),
    "Qwen-Qwen3-0.6B": ("qwen3-30b-a3b", THINK, False, "hermes", OFF),
    "Qwen3-Coder": ("qwen3-coder", None, False, "qwen3-coder", ALWAYS),
    "Qwen-Qwen2.5-7B-Instruct": ("qwen2.5-coder-7b", None, False, "hermes", ALWAYS),
    "google-gemma-4-31B-it": ("gemma4-31b", None, False, "gemma-4", OFF),
    "openai-gpt-oss-120b": ("gpt-oss-120b", CHANNELS, False, "harmony", ALWAYS),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (
        "deepseek-r1-llama-8b", THINK, True, "", ALWAYS,
    ),
    "mistralai-Ministral-3-14B-Reasoning-2512": (
        "ministral3-14b-reasoning", MISTRAL, False, "mistral", ALWAYS,
    ),
    "GLM-4.7-Flash": ("glm4.7-flash", THINK, True, "glm-4.5", OFF),
    "ibm-granite-granite-4.0": ("granite4-h-tiny", None, False, "hermes", ALWAYS),
    "LFM2-8B-A1B": ("lfm2-8b-a1b", None, False, "lfm2", ALWAYS),
    "LFM2.5-Instruct": ("lfm2.5-1.2b", THINK, False, "lfm2", ALWAYS),
    "LFM2.5-8B-A1B": ("lfm2.5-8b-a1b", THINK, False, "lfm2", ALWAYS),
    "openbmb-MiniCPM5-1B": ("minicpm5-1b", THINK, False, "minicpm5", OFF),
    "NVIDIA-Nemotron-Nano-v2": ("nemotron-nano-9b-v2", THINK, True, "nemotron-nano-2", OFF),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (
        "nemotron3-nano-30b", THINK, True, "qwen3-coder", OFF,
    ),
    "ByteDance-Seed-OSS": ("seed-oss-36b", SEED, False, "seed-oss", {"thinking_budget": 0}),
    "moonshotai-Kimi-K2": ("kimi-linear-48b", None, False, "kimi-k2", ALWAYS),
    "Apertus-8B-Instruct": ("apertus-8b", APERTUS, False, "apertus", OFF),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (
        "command-r7b", None, False, "command-r7b", OFF,
    ),
    "HuggingFaceTB-SmolLM3-3B": ("smollm3-3b", THINK, False, "", OFF),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3.1-8b", None, False, "llama-3", ALWAYS),
    "microsoft-Phi-3.5-mini-instruct": ("phi3.5-mini", None, False, "", ALWAYS),
}  # fmt: skip
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Which."}},
            "required": ["city"],
        },
    },
}
CALL = {
    "type": "function",
    "id": "call00001",
    "function": {"name": "weather", "arguments": {"city": "Paris"}},
}
SYSTEM, QUESTION = Message("system", "Be brief."), Message("user", "Hi")
TURNS = (QUESTION, Message("assistant", "Hello."), Message("user", "How are you?"))
ROUND = (
    Message("user", "Weather?"),
    Message("assistant", "", calls=(CALL,)),
    Message("tool", "Sunny", call_id="call00001"),
)
CHATS: dict[str, tuple[Message, ...]] = {
    "one question": (QUESTION,),
    "a system text": (SYSTEM, QUESTION),
    "turns": TURNS,
    "turns and a system text": (SYSTEM, *TURNS, Message("assistant", "Well."), QUESTION),
    "tools": (SYSTEM, Message("user", "Weather?")),
    "a result": (SYSTEM, *ROUND),
    "a turn after a result": (*ROUND, Message("assistant", "It is sunny."), QUESTION),
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = published_templates(tmp_path_factory.mktemp("templates"))
    return lambda name: published_template(folder, name)


def form_of(template: str) -> PromptFormat:
    """The format for a tokenizer that has all marks of the template as special tokens."""
    special = chat_template.labels(template)
    return get_format("template").with_template(template, dict(TOKENS), special)


def record(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        made["tool_calls"] = list(message.calls)
    if message.call_id:
        made["tool_call_id"] = message.call_id
    return made


def by_transformers(template: str, messages: Sequence[Message], **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    records = tool_records.for_template([record(message) for message in messages], template)
    rendered, _ = render_jinja_template(
        [records], chat_template=template, add_generation_prompt=True, **TOKENS, **variables
    )
    return str(rendered[0])


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", FACTS)
def test_prompt_is_that_of_transformers(published: Published, name: str, chat: str) -> None:
    form, messages = form_of(published(name)), CHATS[chat]
    variables: dict[str, Any] = {}
    if "tool" in chat or "result" in chat:
        if not form.has_tools:
            pytest.skip("its template has no tools")
        variables = form.tool_variable([WEATHER])
        form = replace(form, template_tokens=form.template_tokens | variables)
    theirs = by_transformers(published(name), messages, **variables)
    assert form.render(messages).text == theirs


@pytest.mark.parametrize("name", FACTS)
def test_thoughts_tools_and_levels_of_a_template_are_found(published: Published, name: str) -> None:
    preset, marks, inside, syntax, off = FACTS[name]
    assert find(preset).format.name in ("template", "hunyuan")
    form = form_of(published(name))
    found = form.render((QUESTION,)).thinking
    assert (found and (found.opening, found.closing)) == marks
    assert (found is not None and found.inside) == inside
    assert (dialect_of(form).name if form.has_tools else "") == syntax
    assert thinking.variables(form.template, "off") == off


@pytest.mark.parametrize("level", ["on", "off"])
@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts[4] == OFF])
def test_thinking_on_and_off_is_that_of_transformers(
    published: Published, name: str, level: str
) -> None:
    form = form_of(published(name))
    variables = thinking.variables(form.template, level)
    assert variables is not None
    told = replace(form, template_tokens=form.template_tokens | variables)
    theirs = by_transformers(published(name), TURNS, **variables)
    assert told.render(TURNS).text == theirs


def test_gemma_4_and_command_think_when_asked_to(published: Published) -> None:
    for name, marks in (
        ("google-gemma-4-31B-it", GEMMA),
        ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", COMMAND),
    ):
        form = form_of(published(name))
        assert form.thinking == marks
        on = replace(form, template_tokens=form.template_tokens | {"enable_thinking": True})
        assert on.render(TURNS).thinking is not None


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_effort_of_gpt_oss(published: Published, level: str) -> None:
    form = form_of(published("openai-gpt-oss-120b"))
    variables = thinking.variables(form.template, level)
    assert variables == {"reasoning_effort": level}
    told = replace(form, template_tokens=form.template_tokens | variables)
    assert f"Reasoning: {level}\n" in told.render(TURNS).text


WRITTEN = {
    "mistral-tekken-11": "Mistral-Small-3.2-24B-Instruct-2506",
    "mistral-tekken-13": "unsloth-mistral-Devstral-Small-2507",
}


@pytest.mark.parametrize("chat", [name for name in CHATS if "system" in name or "tool" in name])
@pytest.mark.parametrize("name", WRITTEN)
def test_written_format_is_that_of_the_published_template(
    published: Published, name: str, chat: str
) -> None:
    """With a system text: without one, the published templates have one of their own."""
    ours = get_format(name)
    assert ours.template
    tools = {"tools": [WEATHER] if chat == "tools" else None}
    form = ours.with_template(ours.template, {})
    form = replace(form, template_tokens={name: one for name, one in tools.items() if one})
    theirs = by_transformers(published(WRITTEN[name]), CHATS[chat], **tools)
    assert form.render(CHATS[chat]).text == theirs


@pytest.mark.parametrize("name", WRITTEN)
def test_round_of_tools_in_a_written_format(published: Published, name: str) -> None:
    ours = get_format(name)
    assert ours.template
    form = ours.with_template(ours.template, {"tools": [WEATHER]})  # type: ignore[dict-item]
    messages = CHATS["a result"]
    theirs = by_transformers(published(WRITTEN[name]), messages, tools=[WEATHER])
    assert form.render(messages).text == theirs
    assert dialect_of(form).name == "mistral"
