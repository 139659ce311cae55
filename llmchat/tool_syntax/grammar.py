"""The grammar of an answer that may make calls: which calls, how many, and what else it may be."""

import json
import re
from collections.abc import Sequence
from typing import Any

from llmchat.calls import ToolRequest
from llmchat.structure import Structure
from llmchat.tool_syntax import schemas
from llmchat.tool_syntax.argument_grammar import ANY, WRITERS, json_rule
from llmchat.tool_syntax.dialect import Dialect
from llmchat.tool_syntax.lark import Grammar, choice, pattern, quoted

Tool = dict[str, Any]
# White space in JSON that a model writes without marks.
_SPACE = r"[ \n]{0,8}"
_OBJECT_START = rf"[ \n]{{0,4}}\{{{_SPACE}\"name\"{_SPACE}:{_SPACE}\""
_FENCE = r"```[a-z_]{0,12}[ \n]{1,4}"
_CLOSING_FENCE = pattern(r"[ \n]{0,4}```[ \n]{0,4}")
_NUMBER = pattern("[0-9]{1,3}")
_OBJECT_END = pattern(rf"{_SPACE}\}}")
_LIST_END = pattern(rf"{_SPACE}\]")


def answer_grammar(dialect: Dialect, request: ToolRequest, structure: Structure | None) -> str:
    """The grammar for a request, which may be answered without a call unless it requires one.

    structure: the form of an answer that makes no call. After the calls the answer ends. A grammar
    that llguidance cannot compile for a tool is refused by the engine.
    """
    tools = [tool for tool in request.tools if request.name in ("", tool["function"]["name"])]
    writer = _Writer(dialect, tools, request.parallel)
    if dialect.channels:
        required = request.choice == "required" or bool(request.name)
        return writer.grammar.written(writer.channels(required, structure))
    if request.choice == "required" or request.name:
        return writer.grammar.written(writer.calls())
    if structure is not None:
        one_json = structure.is_json and dialect.plain
        calls = writer.json_calls() if one_json else writer.calls()
        return writer.grammar.written(f"{calls} | {_structured(writer, structure)}")
    return writer.grammar.written(" | ".join(writer.free_answer()))


class _Writer:
    def __init__(self, dialect: Dialect, tools: Sequence[Tool], parallel: bool):
        self.grammar = Grammar(dialect.marks)
        self._dialect = dialect
        self._parallel = parallel and not dialect.single
        self._tools = [(tool["function"]["name"], schemas.parameters(tool)) for tool in tools]

    def calls(self) -> str:
        """An answer that is calls and nothing else."""
        if self._dialect.plain:
            return self._plain_calls()
        return f"{self.grammar.text(self._opening())} {self._rest_of_calls()}"

    def free_answer(self) -> list[str]:
        """The alternatives of an answer: text, text and then calls, or bare calls.

        Text is anything: a lazy rule that matches wins over it.
        """
        answers = [self._text(), self._bare("", "{"), self._bare("", "[")]
        if self._dialect.at_start:
            answers.append(self._call_at_start())
        return answers

    def _text(self) -> str:
        """Text, which may go over into calls at a mark or in a fence.

        A fence with JSON that names none of the tools is text, and more text follows it.
        """
        first, rest = self._first_mark()
        marked = [f"{self.grammar.till(ANY, first)} {rest}"] if first else []
        fenced = [self._bare(f"{ANY} ", one) for one in "{["]
        return self.grammar.named("text", " | ".join([ANY, *marked, *fenced]))

    def channels(self, required: bool, structure: Structure | None) -> str:
        """Messages in harmony's channels: thoughts and remarks, then a call or the answer."""
        before = [
            f"{self.grammar.text(f'<|channel|>{name}<|message|>')}"
            f" {self.grammar.till(ANY, '<|end|>')} {self.grammar.text('<|start|>assistant')}"
            for name in ("analysis", "commentary")
        ]
        content = ANY if structure is None else _structured(self, structure)
        final = f"{self.grammar.text('<|channel|>final<|message|>')} {content}"
        answer = self.calls() if required else f"({self.calls()} | {final})"
        return f"({' | '.join(before)})* {answer}"

    def _opening(self) -> str:
        """What precedes the name of the first call, and is the same for all tools."""
        if self._dialect.key:
            return self._dialect.open + ("[" if self._dialect.array else "")
        before = "" if self._dialect.at_start else self._dialect.before
        return self._dialect.open + before

    def _first_mark(self) -> tuple[str, str]:
        """The text that starts calls anywhere in an answer, and the grammar of all that follows."""
        dialect = self._dialect
        opening = dialect.open or dialect.before
        if not opening or (dialect.at_start and not dialect.before):
            return "", ""
        if dialect.at_start:
            return dialect.before, self._rest_of_calls()
        mark = next((mark for mark in dialect.marks if opening.startswith(mark)), opening.strip())
        rest = self._opening().removeprefix(mark)
        return mark, f"{self.grammar.text(rest)} {self._rest_of_calls()}"

    def _call_at_start(self) -> str:
        """Calls without a mark, of which the first is the start of the answer."""
        calls = []
        for name, schema in self._tools:
            head = self.grammar.lazy(pattern(_bare_head(self._opening(), name, self._dialect)))
            calls.append(f"{head} {self._arguments(schema)}")
        return f"{self.grammar.rule('first', ' | '.join(calls))} {self._more_calls()}"

    def _rest_of_calls(self) -> str:
        """All that follows the opening text, up to the end of the answer."""
        if self._dialect.key:
            return self._rest_of_objects(self._one_call())
        return f"{self._one_call()} {self._more_calls()}"

    def _more_calls(self) -> str:
        dialect = self._dialect
        again = self.grammar.text(dialect.separator + dialect.before)
        more = f"({again} {self._one_call()})*" if self._parallel else '""'
        return f"{more} {self.grammar.text(dialect.close)}"

    def _rest_of_objects(self, one: str) -> str:
        dialect = self._dialect
        if dialect.array:
            more = f'(", " {one})*' if self._parallel else ""
            close = self.grammar.text("]" + dialect.close)
            return f"{one} {more} {close}"
        close = self.grammar.text(dialect.close)
        between = (
            dialect.separator if dialect.plain else dialect.close + dialect.separator + dialect.open
        )
        again = self.grammar.text(between)
        more = f"({again} {one})*" if self._parallel else ""
        return f"{one} {more} {close}"

    def _one_call(self) -> str:
        """A call from its name on."""
        calls = [self._call(name, schema) for name, schema in self._tools]
        return self.grammar.rule("call", " | ".join(calls))

    def _call(self, name: str, schema: schemas.Schema) -> str:
        dialect = self._dialect
        if dialect.key:
            head = f'{{"{dialect.name_key}": {quoted(name)}, "{dialect.key}": '
            return f"{quoted(head)} {self._arguments(schema)} {quoted('}')}"
        if dialect.numbered:
            head = f"{quoted(f'{name}:')} {_NUMBER} {self.grammar.text(dialect.between)}"
            return f"{head} {self._arguments(schema)}"
        return f"{self.grammar.text(name + dialect.between)} {self._arguments(schema)}"

    def _arguments(self, schema: schemas.Schema) -> str:
        """The arguments of a call and what closes it."""
        dialect = self._dialect
        arguments = WRITERS[dialect.notation](self.grammar, dialect, schema)
        return f"{arguments} {self.grammar.text(dialect.after)}" if dialect.after else arguments

    def _plain_calls(self) -> str:
        """JSON objects without a mark."""
        one = self._one_call()
        again = quoted(self._dialect.separator or "\n")
        return f"{one} ({again} {one})*" if self._parallel else one

    def json_calls(self) -> str:
        """Calls without a mark, each as a JSON text of its own: llguidance then tells them from
        other JSON that the answer may be."""
        objects = [
            json_rule(self.grammar, schemas.call_object(name, self._dialect.key, schema))
            for name, schema in self._tools
        ]
        one = choice(objects)
        again = quoted(self._dialect.separator or "\n")
        return f"{one} ({again} {one})*" if self._parallel else one

    def _bare(self, before: str, bracket: str) -> str:
        """Calls in JSON, with free white space: at the start of an answer, or in a fence.

        before: the text before the fence; without it there is none. bracket: `{` for objects in
        sequence, `[` for a list. Any other name than a tool's makes it text.
        """
        start = _OBJECT_START if bracket == "{" else rf"\[{_SPACE}{_OBJECT_START}"
        first = pattern(start if not before else f"{_FENCE}{start}")
        opening = self.grammar.lazy(f"{before}{first}")
        rests = [self._bare_rest(name, schema) for name, schema in self._tools]
        one = self.grammar.rule("bare", " | ".join(rests))
        comma = "[,;]?" if bracket == "{" else ","
        again = pattern(rf"{_SPACE}{comma}{_SPACE}{_OBJECT_START}")
        more = f"({again} {one})*" if self._parallel else ""
        end = "" if bracket == "{" else _LIST_END
        block = f"{one} {more} {end}"
        if not before:
            return f"{opening} ({block} | text)"
        reopened = f"({pattern(f'[ ]{{0,4}}{_FENCE}{start}')} {block} {_CLOSING_FENCE})*"
        return f"{opening} ({block} {_CLOSING_FENCE} {reopened if self._parallel else ''} | text)"

    def _bare_rest(self, name: str, schema: schemas.Schema) -> str:
        """A JSON object from the name of the tool on."""
        key = choice([quoted(f'"{key}"') for key in ("arguments", "parameters")])
        comma, colon = pattern(rf"{_SPACE},{_SPACE}"), pattern(rf"{_SPACE}:{_SPACE}")
        named = self.grammar.lazy(quoted(f'{name}"'))
        return f"{named} {comma} {key} {colon} {json_rule(self.grammar, schema)} {_OBJECT_END}"


def _bare_head(opening: str, name: str, dialect: Dialect) -> str:
    """A pattern for a call without a mark, up to its arguments."""
    text = re.escape(opening + name + dialect.between)
    return rf"[ \n]{{0,4}}{text}"


def _structured(writer: _Writer, structure: Structure) -> str:
    """The grammar of an answer without calls."""
    if structure.is_json:
        source = json.loads(structure.source or '{"type": "object"}')
        return json_rule(writer.grammar, source if isinstance(source, dict) else {})
    if structure.kind == "choice":
        return choice([quoted(text) for text in structure.choices])
    if structure.kind == "regex":
        return pattern(structure.source)
    return writer.grammar.rule("answer", f"%lark {{\n{structure.source}\n}}")
