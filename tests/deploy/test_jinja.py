"""The chat templates we write give the text of our own renderer, for every written format and any conversation."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat.conversation import Message
from llmchat.deploy.jinja import jinja_template
from llmchat.presets import formats, get_format
from llmchat.prompt import PromptFormat

WRITTEN = [name for name in formats() if name != "template"]


def render(template: str, messages: Sequence[Message], **variables: Any) -> str:
    """What transformers makes of a template, and vLLM with it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    records = [
        {"role": message.role, "content": message.text, **({"input": message.input} if message.input else {})} for message in messages
    ]
    rendered, _ = render_jinja_template(
        [records], chat_template=template, add_generation_prompt=messages[-1].role == "user", continue_final_message=False, **variables
    )
    return str(rendered[0])


def texts(form: PromptFormat) -> st.SearchStrategy[str]:
    """Messages made of what can go wrong: the format's own labels and cues, white space, line ends, other scripts, Jinja itself."""
    assert form.parts
    own = [*form.parts.labels, form.parts.cue, form.parts.end, form.parts.separator, *form.stops]
    traps = [
        "{{ x }}",
        "{% if %}",
        "{# #}",
        "{text}",
        "{input}",
        "{system}",
        '"',
        "\\",
        "\\n",
        "\r\n",
        "\r",
        "\n\n\n",
        "\t",
        " ",
        "\u3000",
        "\u2060",
        "\x1c",
        "\x85",
    ]
    piece = st.one_of(st.sampled_from([text for text in (*own, *traps) if text]), st.text(max_size=6))
    return st.lists(piece, max_size=6).map("".join)


@st.composite
def conversations(draw: st.DrawFn, form: PromptFormat) -> list[Message]:
    text = texts(form)
    system = [Message("system", draw(text))] if draw(st.booleans()) else []
    spoken = [
        Message("assistant" if index % 2 else "user", draw(text), "" if index % 2 else draw(st.just("") | text))
        for index in range(draw(st.integers(1, 5)))
    ]
    return system + spoken


@pytest.mark.parametrize("name", WRITTEN)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_template_gives_the_text_of_the_renderer(name: str, data: st.DataObject) -> None:
    form = get_format(name)
    messages = data.draw(conversations(form))
    assert render(jinja_template(form), messages) == form.render(messages).text
