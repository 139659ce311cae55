"""The structure of an answer in a request to llama.cpp.

A build with llguidance reads Lark, as our own engine does. It says nothing of a grammar that it
cannot compile, and generates free text: `check_gguf` refuses in advance what can be known, and
GgufEngine checks the whole answer. A build without it gets llama.cpp's own grammars.
"""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from llmchat import tool_syntax
from llmchat.engines.gbnf import (
    check_converted,
    grammar_of_choices,
    grammar_of_regex,
    literal,
)
from llmchat.engines.guide import check
from llmchat.engines.guide.exact_schema import exact
from llmchat.engines.guide.grammar import JSON_STYLE, as_object
from llmchat.errors import UsageError
from llmchat.structure import Structure

# The version of llguidance in llama.cpp is older than ours and refuses other options.
_KNOWN = ("whitespace_flexible", "item_separator", "key_separator", "coerce_one_of", "lenient")
_STYLE = {name: JSON_STYLE[name] for name in _KNOWN}
_HEADER = "%llguidance {}"


@functools.cache
def has_llguidance() -> bool:
    """Whether this build of llama.cpp has llguidance in it."""
    import xllamacpp

    return str(xllamacpp.json_schema_to_grammar('{"type": "object"}')).startswith("%llguidance")


def check_gguf(structure: Structure) -> None:
    """Raise UsageError for a structure that is malformed or that llama.cpp does not enforce."""
    check(structure)
    if not has_llguidance():
        _own_fields(structure)


def structure_fields(structure: Structure, special: Mapping[str, int]) -> dict[str, Any]:
    """The fields of a request. special: ids of special tokens, see tool_syntax.resolve."""
    if not has_llguidance():
        return _own_fields(structure)
    return {"grammar": lark_of(structure, special)}


def either_fields(structure: Structure, opening: str, special: Mapping[str, int]) -> dict[str, Any]:
    """The fields of a request for the mark that opens a thought, or for the whole structure."""
    if not has_llguidance():
        fields = _own_fields(structure)
        body = fields.get("grammar", "").replace("root ::=", "body ::=", 1)
        either = f"root ::= {literal(opening)} | body\n{body}"
        return {"grammar": either} if body else fields
    mark = f"<[{special[opening]}]>" if opening in special else json.dumps(opening)
    lark = lark_of(structure, special)
    # The rules of a grammar keep their names: only its start becomes an alternative.
    started, found = re.subn(r"(?m)^start\s*:", "llmchat_structure:", lark, count=1)
    if not found:
        return {"grammar": lark}
    return {"grammar": f"{started.rstrip()}\nstart: {mark} | llmchat_structure\n"}


def lark_of(structure: Structure, special: Mapping[str, int]) -> str:
    """A structure in Lark, with the header by which llama.cpp knows it."""
    if structure.kind == "grammar":
        lark = tool_syntax.resolve(structure.source, special)
        return lark if lark.startswith("%llguidance") else f"{_HEADER}\n{lark}"
    return f"{_HEADER}\nstart: {_expression(structure)}\n"


def _expression(structure: Structure) -> str:
    from llguidance import regex_to_lark

    if structure.kind == "regex":
        return f"/{regex_to_lark(structure.source, use_ascii='')}/"
    if structure.kind == "choice":
        return " | ".join(json.dumps(text, ensure_ascii=False) for text in structure.choices)
    schema = {"type": "object"} if structure.kind == "json" else json.loads(structure.source)
    return f"%json {json.dumps(exact(as_object(schema)) | {'x-guidance': _STYLE})}"


def _own_fields(structure: Structure) -> dict[str, Any]:
    """For a build without llguidance: its own grammars, and its converter of JSON Schemas."""
    if structure.kind == "grammar":
        raise UsageError(
            "this build of llama.cpp cannot read Lark grammars",
            "a wheel of xllamacpp from PyPI can, and the engine `transformers`",
        )
    if structure.kind == "regex":
        return {"grammar": grammar_of_regex(structure.source)}
    if structure.kind == "choice":
        return {"grammar": grammar_of_choices(structure.choices)}
    schema = {"type": "object"} if structure.kind == "json" else json.loads(structure.source)
    check_converted(schema)
    return {"json_schema": schema}
