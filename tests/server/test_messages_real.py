"""Anthropic's client does one job with a tool, with a real model."""

from pathlib import Path
from typing import Any

import anthropic
import pytest
from support.serving import qwen_spec, serving

STOCK: Any = {
    "name": "stock",
    "description": "How many pieces of a part are in the store.",
    "input_schema": {
        "type": "object", "properties": {"part": {"type": "string"}}, "required": ["part"],
    },
}  # fmt: skip
QUESTION: Any = {"role": "user", "content": 'How many pieces of the part "M4 screw" are in store?'}


def streamed(client: anthropic.Anthropic, messages: Any, choice: Any) -> Any:
    with client.messages.stream(
        model="qwen",
        max_tokens=100,
        messages=messages,
        tools=[STOCK],
        tool_choice=choice,
        extra_body={"temperature": 0},
    ) as stream:
        return stream.get_final_message()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_model_looks_up_a_number(tmp_path: Path) -> None:
    """The model chooses the call by itself, and answers from its result."""
    with serving({"qwen": qwen_spec(tmp_path)}, tmp_path) as run:
        client = run.anthropic.with_options(timeout=300)
        first = streamed(client, [QUESTION], {"type": "auto"})
        (call,) = first.content
        assert (first.stop_reason, call.name, call.input) == (
            "tool_use", "stock", {"part": "M4 screw"},
        )  # fmt: skip
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "217 pieces"}
        talk = [
            QUESTION, {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]  # fmt: skip
        # A model of this size calls again rather than answer, as long as it is offered the tool.
        second = streamed(client, talk, {"type": "none"})
    assert second.stop_reason == "end_turn" and "217" in second.content[0].text
