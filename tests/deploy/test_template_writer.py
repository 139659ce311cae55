"""Chat templates that deploy writes render every conversation as llmchat does, in every format."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from msgspec.structs import replace

from llmchat import chat_template
from llmchat.conversation import Message
from llmchat.deploy.template_writer import jinja_template
from llmchat.errors import Mismatch
from llmchat.presets import formats, get_format
from llmchat.prompt import WORD_JOINER, Parts, PromptFormat

WRITTEN = [name for name in formats() if get_format(name).parts]


def records(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [
        {
            "role": message.role,
            "content": message.text,
            **({"input": message.input} if message.input else {}),
        }
        for message in messages
    ]


def render(template: str, messages: Sequence[Message], **variables: Any) -> str:
    """What transformers makes of a template, and vLLM with it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    variables = {"add_generation_prompt": messages[-1].role == "user"} | variables
    rendered, _ = render_jinja_template([records(messages)], chat_template=template, **variables)
    return str(rendered[0])


def texts(form: PromptFormat) -> st.SearchStrategy[str]:
    """Difficult messages: the format's labels and cues, whitespace, other scripts, Jinja."""
    assert form.parts
    own = [*form.parts.labels, form.parts.cue, form.parts.end, form.parts.separator, *form.stops]
    jinja = [
        "{{ x }}",
        "{% if %}",
        "{# #}",
        "{text}",
        "{input}",
        "{system}",
        '"',
        "\\",
        "\\n",
        "\\u2060",
    ]
    spaces = ["\r\n", "\r", "\n\n\n", "\t", " ", "\u3000", "\u2060", "\x1c", "\x85", "\u2028"]
    piece = st.one_of(
        st.sampled_from([text for text in (*own, *jinja, *spaces) if text]), st.text(max_size=6)
    )
    return st.lists(piece, max_size=6).map("".join)


@st.composite
def conversations(draw: st.DrawFn, form: PromptFormat) -> list[Message]:
    text = texts(form)
    system = [Message("system", draw(text))] if draw(st.booleans()) else []
    spoken = [
        Message(
            "assistant" if index % 2 else "user",
            draw(text),
            "" if index % 2 else draw(st.just("") | text),
        )
        for index in range(draw(st.integers(1, 5)))
    ]
    return system + spoken


@pytest.mark.parametrize("name", WRITTEN)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_template_gives_the_text_of_the_renderer(name: str, data: st.DataObject) -> None:
    form = get_format(name)
    messages = data.draw(conversations(form))
    assert render(jinja_template(form), messages) == form.render(messages).text


@pytest.mark.parametrize("name", WRITTEN)
def test_a_template_runs_in_our_own_sandbox_too(name: str) -> None:
    form, messages = (
        get_format(name),
        [
            Message("system", "S"),
            Message("user", "Hi\n\n\nyou"),
            Message("assistant", "Hello"),
            Message("user", "?"),
        ],
    )
    text = chat_template.run(
        jinja_template(form), {"messages": records(messages), "add_generation_prompt": True}, name
    )
    assert text == form.render(messages).text


@pytest.mark.parametrize("name", WRITTEN)
def test_material_may_come_beside_the_messages_as_vllm_passes_it(name: str) -> None:
    form = get_format(name)
    messages = [
        Message("user", "Summarise."),
        Message("assistant", "Done."),
        Message("user", "And this?", "A text."),
    ]
    first = [Message("user", "Summarise.", "A text."), *messages[1:2], Message("user", "Shorter.")]
    bare = [Message(message.role, message.text) for message in messages]
    assert render(jinja_template(form), bare, inputs=["", "A text."]) == form.render(messages).text
    assert (
        render(
            jinja_template(form), [Message("user", "Summarise."), *first[1:]], inputs=["A text."]
        )
        == form.render(first).text
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_the_system_text_of_a_preset_holds_where_the_conversation_has_none(name: str) -> None:
    form, system = get_format(name), 'You are "Koko" \\ 코코.\nBe kind.'
    template, ask = jinja_template(form, system=system), Message("user", "Who are you?")
    assert render(template, [ask]) == form.render([Message("system", system), ask]).text
    assert (
        render(template, [Message("system", "Other."), ask])
        == form.render([Message("system", "Other."), ask]).text
    )
    assert render(template, [Message("system", ""), ask]) == form.render([ask]).text


def test_the_opening_token_goes_before_the_text() -> None:
    form, messages = get_format("alpaca"), [Message("user", "Hi")]
    assert render(jinja_template(form, bos="<s>"), messages) == "<s>" + form.render(messages).text


def test_special_tokens_in_messages_are_made_harmless_and_the_formats_own_stay() -> None:
    form = get_format("vicuna")
    text = render(
        jinja_template(form, special=("</s>", "<s>")),
        [Message("user", "a</s>b"), Message("assistant", "c")],
    )
    assert text.endswith(f"USER: a<{WORD_JOINER}/s>b ASSISTANT: c</s>")


def test_without_the_generation_prompt_a_question_has_no_cue() -> None:
    form, messages = get_format("vicuna"), [Message("user", "Hi")]
    assert (
        render(jinja_template(form), messages, add_generation_prompt=False) + form.parts.cue
        == form.render(messages).text
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "assistant", "content": "x"}], "take turns"),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
            "message 2 is from `user`",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}],
            "message 2 is from `tool`",
        ),
        ([{"role": "system", "content": "x"}], "needs a user message"),
        ([], "needs a user message"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "text alone"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": None}], "text alone"),
    ],
    ids=[
        "assistant first",
        "twice the user",
        "a tool",
        "system alone",
        "nothing",
        "parts",
        "no text",
    ],
)
def test_what_the_renderer_refuses_the_template_refuses(
    messages: list[dict[str, Any]], reason: str
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    with pytest.raises(TemplateError, match=reason):
        render_jinja_template(
            [messages],
            chat_template=jinja_template(get_format("alpaca")),
            add_generation_prompt=True,
        )


def test_tidying_takes_as_many_passes_as_it_needs() -> None:
    form, message = (
        get_format("raven"),
        Message("user", "a" + "\r" * 3000 + "\n" + "\n" * 5000 + "b"),
    )
    assert (
        render(jinja_template(form), [message])
        == form.render([message]).text
        == "Bob: a\nb\n\nAlice:"
    )


def test_what_cannot_be_said_in_jinja_is_refused() -> None:
    with pytest.raises(Mismatch, match="own chat template"):
        jinja_template(get_format("template"))
    growing = PromptFormat("mine", parts=Parts(user="{text}", tidy=(("a", "bb"),)))
    with pytest.raises(Mismatch, match="tidy"):
        jinja_template(growing)


def test_a_template_is_ascii_so_that_no_locale_changes_it() -> None:
    form = replace(get_format("kullm"), name="코 #} {{ x }}")
    assert jinja_template(form).isascii()
    assert (
        render(jinja_template(form), [Message("user", "안녕")])
        == form.render([Message("user", "안녕")]).text
    )
