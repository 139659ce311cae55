"""How each family of models spells the definitions, calls and results of tools.

`prepare` offers tools in a preset's prompts and binds the answer; `parser` finds the calls in it.
The families are one table, `tool_syntax.table`.
"""

from msgspec.structs import replace

from llmchat import written_tools
from llmchat.calls import ToolRequest
from llmchat.presets import Preset
from llmchat.prompt import PromptFormat
from llmchat.structure import Structure
from llmchat.tool_syntax.amendments import amended
from llmchat.tool_syntax.call_parser import CallParser as CallParser
from llmchat.tool_syntax.dialect import Dialect as Dialect
from llmchat.tool_syntax.grammar import answer_grammar
from llmchat.tool_syntax.lark import resolve as resolve
from llmchat.tool_syntax.table import GENERIC, detect


def prepare(
    preset: Preset, request: ToolRequest, structure: Structure | None = None
) -> tuple[Preset, Structure | None]:
    """The preset with prompts that offer the tools, and the form of the answer.

    structure: the form of an answer that makes no call. The form that is returned is a grammar for
    llguidance: arguments follow the tool's schema, and the request's choice is kept. With the
    choice `none` the model learns of no tools, and the answer has its own form.
    """
    if not request.tools or (request.choice == "none" and not request.name):
        return preset, structure
    dialect = dialect_of(preset.format)
    form = _offering(preset.format, request)
    form = replace(
        form,
        stops=tuple(dict.fromkeys((*form.stops, *dialect.stops))),
        shown_tokens=dialect.marks,
        thinking=(form.thinking[0], dialect.thought_end or form.thinking[1]),
    )
    grammar = answer_grammar(dialect, request, structure)
    return replace(preset, format=form), Structure("grammar", grammar)


def parser(preset: Preset, request: ToolRequest) -> CallParser:
    """Finds calls of the request's tools in an answer to a prompt of this preset."""
    return CallParser(dialect_of(preset.format), request)


def dialect_of(form: PromptFormat) -> Dialect:
    """The syntax of calls in this prompt format: the template's own, or else Hermes'."""
    return detect(form.template or "") if form.has_tools else GENERIC


def _offering(form: PromptFormat, request: ToolRequest) -> PromptFormat:
    form = replace(form, offered=request.names)
    if not form.has_tools:
        return replace(form, tool_text=written_tools.definitions(request.offered))
    tokens = form.template_tokens | form.tool_variable(request.offered)
    return replace(form, template=amended(form.template or ""), template_tokens=tokens)
