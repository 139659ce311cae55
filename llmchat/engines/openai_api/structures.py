"""How each server spells the structure of an answer.

Sources: OpenAI's guide to structured outputs; vLLM's docs/features/structured_outputs.md; SGLang's
page on structured outputs; llama.cpp's tools/server/README.md; Ollama's docs/openai.md.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llmchat.engines.gbnf import check_converted, grammar_of_choices, grammar_of_regex
from llmchat.engines.openai_api.dialects import Dialect
from llmchat.errors import UsageError
from llmchat.structure import Structure

Fields = dict[str, Any]
Writer = Callable[[Structure], Fields]


def structure_fields(structure: Structure, dialect: Dialect, chat: bool) -> Fields:
    """The fields of a request. Raises UsageError for what the server cannot enforce.

    chat: the request has messages; otherwise it has a text.
    """
    writers = _WRITERS[dialect.title] if chat else _OF_TEXT.get(dialect.title, {})
    if structure.kind not in writers:
        raise _refusal(structure, dialect, chat)
    return writers[structure.kind](structure)


def _refusal(structure: Structure, dialect: Dialect, chat: bool) -> UsageError:
    server, noun = dialect.title or "this server", _NOUNS[structure.kind]
    if structure.kind == "choice" and "schema" in _WRITERS[dialect.title] and chat:
        return UsageError(
            f"{server} cannot bind an answer to {noun}",
            'a schema binds JSON to them: --schema \'{"enum": ["yes", "no"]}\'',
        )
    what = "an answer to a text" if not chat and structure.is_json else "an answer"
    return UsageError(
        f"{server} cannot bind {what} to {noun}",
        "vLLM, `llmchat serve` and the engine `transformers` can",
    )


_NOUNS = {
    "json": "JSON",
    "schema": "a JSON Schema",
    "regex": "a regular expression",
    "choice": "choices",
    "grammar": "a Lark grammar",
}


def _schema_of(structure: Structure) -> Any:
    return {"type": "object"} if structure.kind == "json" else json.loads(structure.source)


def _json_object(structure: Structure) -> Fields:
    return {"response_format": {"type": "json_object"}}


def _json_schema(structure: Structure) -> Fields:
    """OpenAI enforces a schema only where `strict` asks for it."""
    named = {"name": "answer", "strict": True, "schema": _schema_of(structure)}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _structured_outputs(structure: Structure) -> Fields:
    values: Fields = {
        "json": {"json_object": True},
        "schema": {"json": _schema_of(structure) if structure.is_json else None},
        "choice": {"choice": structure.choices},
    }
    return {"structured_outputs": values.get(structure.kind, {structure.kind: structure.source})}


def _regex_of_choices(structure: Structure) -> Fields:
    return {"regex": "|".join(f"({re.escape(choice)})" for choice in structure.choices)}


def _regex(structure: Structure) -> Fields:
    return {"regex": structure.source}


def _schema_as_text(structure: Structure) -> Fields:
    return {"json_schema": json.dumps(_schema_of(structure))}


def _converted(structure: Structure) -> Fields:
    check_converted(_schema_of(structure))
    return _json_schema(structure)


def _converted_of_text(structure: Structure) -> Fields:
    check_converted(_schema_of(structure))
    return {"json_schema": _schema_of(structure)}


def _gbnf(structure: Structure) -> Fields:
    if structure.kind == "choice":
        return {"grammar": grammar_of_choices(structure.choices)}
    return {"grammar": grammar_of_regex(structure.source)}


_ALL: dict[str, Writer] = dict.fromkeys(_NOUNS, _structured_outputs)
_SGLANG: dict[str, Writer] = {"regex": _regex, "choice": _regex_of_choices}
_LLAMA_CPP: dict[str, Writer] = {"regex": _gbnf, "choice": _gbnf}
_OPENAI: dict[str, Writer] = {"json": _json_object, "schema": _json_schema}
# Server → kind → how its chat takes it. A server without a name may know OpenAI's fields.
_WRITERS: Mapping[str, Mapping[str, Writer]] = {
    "vLLM": _ALL,
    "llmchat": _ALL,
    "SGLang": _OPENAI | _SGLANG,
    "llama.cpp": {"json": _json_object, "schema": _converted} | _LLAMA_CPP,
    "Ollama": {"json": _json_object, "schema": _converted},
    "OpenAI": _OPENAI,
    "": _OPENAI,
}
# The same for /v1/completions, for which OpenAI has no such field.
_OF_TEXT: Mapping[str, Mapping[str, Writer]] = {
    "vLLM": _ALL,
    "llmchat": _ALL,
    "SGLang": {"json": _schema_as_text, "schema": _schema_as_text} | _SGLANG,
    "llama.cpp": {"json": _converted_of_text, "schema": _converted_of_text} | _LLAMA_CPP,
}
