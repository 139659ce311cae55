"""How the structure of an answer reaches each server, and what a server cannot enforce."""

import json
from typing import Any

import pytest

from llmchat.conversation import Message
from llmchat.engines import Sampling
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import dialect_of
from llmchat.engines.openai_api.server_models import Served
from llmchat.errors import UsageError
from llmchat.prompt import Prompt
from llmchat.structure import ANY_JSON, Structure, from_choices, from_schema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
SCHEMA, REGEX = from_schema(PERSON), Structure("regex", "[a-c]+")
CHOICE, GRAMMAR = from_choices(["a.b", "c"]), Structure("grammar", 'start: "x"')
PROMPT = Prompt("Q", (Message("user", "Q"),))
NEW_FIELDS = {"response_format", "structured_outputs", "regex", "grammar", "json_schema"}


def engine(owner: str, *, chat: bool = True) -> OpenAIEngine:
    host = "api.openai.com" if owner == "openai" else "localhost"
    served = Served("m", dialect_of(owner, host), 99)
    return OpenAIEngine(Connection("http://localhost:1"), served, chat=chat)


def sent(owner: str, structure: Structure, *, chat: bool = True) -> dict[str, Any]:
    """The fields of a request that carry the structure."""
    one = engine(owner, chat=chat)
    one.check_structure(structure)
    body = one.request(PROMPT, Sampling(structure=structure), 3)[1]
    return {name: value for name, value in body.items() if name in NEW_FIELDS}


def format_of(schema: Any) -> dict[str, Any]:
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("owner", ["vllm", "llmchat"])
def test_vllm_and_llmchat_take_every_kind(owner: str, chat: bool) -> None:
    values = {
        SCHEMA: {"json": PERSON},
        ANY_JSON: {"json_object": True},
        REGEX: {"regex": "[a-c]+"},
        CHOICE: {"choice": ["a.b", "c"]},
        GRAMMAR: {"grammar": 'start: "x"'},
    }
    for structure, value in values.items():
        assert sent(owner, structure, chat=chat) == {"structured_outputs": value}


def test_other_servers_take_json_in_the_response_format() -> None:
    for owner in ("sglang", "llamacpp", "library", "openai", ""):
        assert sent(owner, SCHEMA) == format_of(PERSON)
        assert sent(owner, ANY_JSON) == {"response_format": {"type": "json_object"}}


def test_sglang_and_llama_cpp_take_patterns_and_choices() -> None:
    assert sent("sglang", REGEX) == {"regex": "[a-c]+"}
    assert sent("sglang", CHOICE) == {"regex": "(a\\.b)|(c)"}
    assert sent("llamacpp", REGEX) == {"grammar": "root ::= ([a-c])+\n"}
    assert sent("llamacpp", CHOICE) == {"grammar": 'root ::= "a\\x2Eb" | "c"\n'}


def test_a_text_takes_other_fields_than_messages() -> None:
    assert json.loads(sent("sglang", SCHEMA, chat=False)["json_schema"]) == PERSON
    assert sent("llamacpp", SCHEMA, chat=False) == {"json_schema": PERSON}
    assert sent("llamacpp", CHOICE, chat=False) == sent("llamacpp", CHOICE)
    with pytest.raises(UsageError, match="cannot bind an answer to a text to a JSON Schema"):
        sent("", SCHEMA, chat=False)


@pytest.mark.parametrize(
    ("owner", "structure", "message", "hint"),
    [
        ("openai", REGEX, "OpenAI cannot bind an answer to a regular expression", "vLLM, `llmchat"),
        ("library", GRAMMAR, "Ollama cannot bind an answer to a Lark grammar", "vLLM, `llmchat"),
        ("sglang", GRAMMAR, "SGLang cannot bind an answer to a Lark grammar", "vLLM, `llmchat"),
        ("llamacpp", GRAMMAR, "llama.cpp cannot bind an answer to a Lark", "vLLM, `llmchat"),
        ("library", CHOICE, "Ollama cannot bind an answer to choices", "a schema binds JSON"),
        ("", CHOICE, "this server cannot bind an answer to choices", "a schema binds JSON"),
        (
            "llamacpp",
            from_schema({"type": "number", "multipleOf": 2}),
            "llama.cpp does not enforce `multipleOf` for the type number in a JSON Schema",
            "the engine `transformers` and vLLM enforce it",
        ),
        (
            "llamacpp",
            Structure("regex", "(?=a)b"),
            "llama.cpp's grammars cannot express a lookaround of a regular expression",
            "the engine `transformers` and vLLM take it",
        ),
    ],
)
def test_what_a_server_cannot_enforce_is_refused(
    owner: str, structure: Structure, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        engine(owner).check_structure(structure)
    assert raised.value.message.startswith(message)
    assert raised.value.hint.startswith(hint)
    with pytest.raises(UsageError):
        engine(owner).request(PROMPT, Sampling(structure=structure), 3)
