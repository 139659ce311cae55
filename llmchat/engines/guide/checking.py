"""Whether a structure can be enforced, before anything is loaded."""

import json
import re
from collections.abc import Collection
from typing import Any

from llmchat.engines.guide import schema_checks
from llmchat.engines.guide.grammar import grammar_of, schemas_in
from llmchat.errors import UsageError, first_line
from llmchat.structure import Structure

# The most characters of a source. A larger one takes seconds to read.
_LONGEST = 2_000_000
_NOUNS = {
    "json": "the structure", "schema": "the JSON Schema", "regex": "the regular expression",
    "choice": "the list of choices", "grammar": "the grammar",
}  # fmt: skip
_SPECIAL = re.compile(r"<(\|?[^<>\[\]\s|]+\|?)>")
_FORMATS = "date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid and uri"


def limits() -> Any:
    """The memory and time of one grammar: those of llguidance, with fewer states of its lexer, each
    of which takes up to 2 kB.
    """
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


def check(structure: Structure) -> None:
    """Raise UsageError if a structure is malformed or cannot be enforced, naming what in it.

    It takes about a millisecond and needs no model. A token that only the model knows counts as
    known.
    """
    noun = _NOUNS[structure.kind]
    if len(structure.source) > _LONGEST:
        raise UsageError(f"{noun} has {len(structure.source):,} characters; {_LONGEST:,} fit")
    try:
        problem = _fault_of_grammar(grammar_of(structure), structure)
    except (ValueError, RecursionError) as error:
        problem = first_line(error)
    if problem:
        raise UsageError(*_refusal(structure, noun, problem))


def _fault_of_grammar(grammar: str, structure: Structure) -> str:
    """What llguidance says against a grammar; empty if nothing.

    It builds the parser and takes its first step, because limits are only met there.
    """
    from llguidance import LLMatcher

    special = _SPECIAL.findall(structure.source) if structure.kind == "grammar" else []
    tokenizer = bytes_tokenizer(special)
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer, limits=limits())
    if failed or messages:
        return str(messages[0])
    if fault := next(filter(None, map(schema_checks.fault, schemas_in(structure))), ""):
        return fault
    return fault_of_matcher(LLMatcher(tokenizer, grammar, log_level=0, limits=limits()))


def fault_of_matcher(matcher: Any) -> str:
    """Why a new matcher cannot take its first step; empty if it can."""
    if not matcher.is_error() and not matcher.is_stopped():
        matcher.compute_ff_tokens()
        matcher.compute_bitmask()
    return str(matcher.get_error())


class _Bytes:
    """A tokenizer of single bytes, as llguidance takes one. special: names of further tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256

    def __init__(self, special: list[str]):
        names = ["|end|", *special]
        self.tokens = [bytes([byte]) if byte < 255 else b"" for byte in range(256)]
        self.tokens += [f"<{name}>".encode() for name in names]
        self.special_token_ids = list(range(256, 256 + len(names)))

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def bytes_tokenizer(special: Collection[str] = ()) -> Any:
    from llguidance import LLTokenizer

    tokenizer: Any = _Bytes(sorted(set(special)))
    return LLTokenizer(tokenizer, slices=[])


def _refusal(structure: Structure, noun: str, problem: str) -> tuple[str, str]:
    """Message and hint for what llguidance says."""
    if found := re.search(r"Unimplemented keys: (\[.*\])", problem):
        names = " and ".join(f"`{name}`" for name in json.loads(found[1]))
        return f"{noun} uses {names}, which cannot be enforced", "remove it, or write it otherwise"
    if found := re.search(r"Unknown format: (.*)", problem):
        return (
            f"`format` with the value `{found[1]}` cannot be enforced",
            f"{_FORMATS} are; `pattern` describes other texts",
        )
    if "oneOf constraints" in problem:
        return (
            f"{noun} uses `oneOf` with options that can overlap, which cannot be enforced",
            "`anyOf` accepts a value of one option or more",
        )
    if "min/maxProperties" in problem:
        return (
            f"{noun} uses `minProperties` or `maxProperties` beside optional properties, which"
            " cannot be enforced",
            "require each of the properties, or remove the keyword",
        )
    return f"{noun} cannot be used: {_short(problem, structure.kind)}", ""


def _short(problem: str, kind: str) -> str:
    """The line of a message that says what is wrong."""
    text = problem.partition("\n<")[0]
    keyword = "`pattern`: " if kind == "schema" and "regex" in text else ""
    if found := re.search(r"^error: (.*)", text, re.MULTILINE):
        return keyword + found[1]
    if found := re.search(r"lookarounds not supported yet; (\w+)", text):
        return f"{keyword}it uses an assertion ({found[1]}), which cannot be enforced"
    return keyword + next(iter(text.strip().splitlines()), "it is too complex")
