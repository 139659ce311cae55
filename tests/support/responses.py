"""Scripted models for /v1/responses, and what they were asked."""

from collections.abc import Generator

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.prompt import Prompt
from support.serving import Running

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
PATCH = '<tool_call>\n{"name": "patch", "arguments": {"input": "+ a\\n- b"}}\n</tool_call>'
SPACED = '<tool_call>\n{"name": "maps.weather", "arguments": {}}\n</tool_call>'
SCRIPTS = {
    "plain": ["Well, **yes**.\n\nAnd no."],
    "thinker": ["<think>\nHm, so.\n</think>\n\nIt is 4."],
    "caller": [f"I look.\n{CALL}", "It is sunny."],
    "patcher": [PATCH, "Done."],
    "spaced": [SPACED, "Here."],
    "echo": [],
}


def sent(run: Running, key: str) -> str:
    """The last prompt of a model."""
    loaded = run.state.pool.loaded_models()
    engine = next(resident.engine for resident in loaded if resident.key == key)
    return str(engine.prompts[-1].text)  # type: ignore[attr-defined]


class Failing(ScriptedEngine):
    """Fails in the middle of an answer."""

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        yield Chunk("Well, ")
        raise ValueError("secret")
