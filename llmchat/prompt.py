"""Render messages to the exact text that a model is given.

A format is data: written parts (our TOML files) or a chat template (the checkpoint's). Chat and
training use the same function: `Prompt.learn` marks what the model writes. This module knows no
token ids; a prompt tells the tokenizer what to do (`bos`, `quoted`).
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat import chat_template, thought_marks, tool_records, written_tools
from llmchat.calls import ToolRequest
from llmchat.chat_template.quoting import Placeholders, Range, map_texts
from llmchat.conversation import Message
from llmchat.errors import Mismatch, UsageError
from llmchat.written_prompt import WORD_JOINER as WORD_JOINER
from llmchat.written_prompt import Parts as Parts
from llmchat.written_prompt import Replacements as Replacements
from llmchat.written_prompt import disarm as disarm
from llmchat.written_prompt import plain_text as plain_text
from llmchat.written_prompt import split_system, substitute, write_parts

# The variables in which chat templates expect tools; SmolLM3's has a name of its own.
_TOOLS = ("tools", "xml_tools")


class ThinkingMarks(Struct, frozen=True):
    """The marks around a model's thoughts. inside: the prompt ends within a thought."""

    opening: str
    closing: str
    inside: bool = False


class Prompt(Struct, frozen=True):
    """Rendered messages. Ranges are character offsets into `text`.

    stops: strings that end the answer, in addition to the checkpoint's end tokens. stop_ids: token
    ids that do.
    learn: what the model writes (its answers and their end marks), the part that training counts.
    quoted: what people wrote; a special token spelt in there is text, not a token.
    bos: the tokenizer puts its BOS token before the text (a template writes its own).
    unescapes: replacements in what the model writes, see PromptFormat.
    ids: token ids, if the caller provides them; then `text` only shows them.
    tools: what the model is offered, for engines that send messages instead of text. shown_tokens:
    special tokens that are part of the answer's text, because calls are recognised by them.
    thinking: the marks of the model's thoughts; None where no thought can follow. begun: the answer
    that the text ends with and that the model continues.
    """

    text: str
    messages: tuple[Message, ...]
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    learn: tuple[Range, ...] = ()
    quoted: tuple[Range, ...] = ()
    bos: bool = True
    unescapes: Replacements = ()
    ids: tuple[int, ...] = ()
    tools: ToolRequest | None = None
    shown_tokens: tuple[str, ...] = ()
    thinking: ThinkingMarks | None = None
    begun: str = ""


class PromptFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to write a conversation as a prompt.

    When the checkpoint is known, exactly one of `parts` and `template` is set.
    decision: what was decided where the sources of the format disagree.
    labels: marks of a template that the tokenizer reads as plain text, so that a message must not
    contain them.
    escapes: replacements in the whole prompt, for models that were trained without line ends;
    unescapes: those in the answer.
    stop_ids: from the preset, because token ids belong to one vocabulary.
    thinking: the marks around a model's thoughts, which are shown and never sent back; those that a
    template writes replace them.
    offered: names of the tools that prompts offer. tool_text: what offers them, at the end of the
    system text, where the format has no place for them. shown_tokens: see Prompt.
    """

    name: str
    source: str = ""
    decision: str = ""
    notes: str = ""
    parts: Parts | None = None
    template: str | None = None
    template_tokens: dict[str, Any] = {}
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    escapes: Replacements = ()
    unescapes: Replacements = ()
    thinking: thought_marks.Marks = thought_marks.THINK
    offered: tuple[str, ...] = ()
    tool_text: str = ""
    shown_tokens: tuple[str, ...] = ()

    def with_template(
        self, template: str, tokens: dict[str, str], special: Collection[str] = ()
    ) -> "PromptFormat":
        """This format with the checkpoint's chat template.

        tokens: variables of the template such as bos_token. special: the tokenizer's special
        tokens; every other mark of the template is plain text to it and becomes a label.
        """
        labels = tuple(sorted(chat_template.labels(template) - set(special)))
        thinking = thought_marks.marks_in(template)
        return replace(
            self, template=template, template_tokens=tokens, labels=labels, thinking=thinking
        )

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt for these messages.

        After a user message it is open for an answer; after an answer it is a complete record.
        """
        messages = tuple(messages)
        if not messages or messages[-1].role == "system":
            raise UsageError("a prompt needs a user message")
        said, messages = messages, self._with_written_tools(messages)
        if self.parts:
            page = write_parts(self.parts, messages, self.escapes)
            text, learn, quoted = page.text, tuple(page.learn), tuple(page.quoted)
        elif self.template is not None:
            text, learn, quoted = _write_template(self, messages)
        else:
            raise Mismatch(
                f"the format `{self.name}` needs a chat template, and this checkpoint has none",
                "name a format with --format; `llmchat presets --formats` lists them",
            )
        return Prompt(
            text,
            said,
            stops=self.stops,
            stop_ids=self.stop_ids,
            learn=learn,
            quoted=quoted,
            bos=self.parts is not None,
            unescapes=self.unescapes,
            shown_tokens=self._shown_tokens,
            thinking=self._thinking(text),
        )

    @property
    def is_written(self) -> bool:
        """Whether the format needs no chat template of a checkpoint."""
        return self.parts is not None or self.template is not None

    @property
    def has_tools(self) -> bool:
        """Whether the format has a place for tools: a template with a variable for them."""
        return not self.parts and bool(chat_template.names(self.template or "") & set(_TOOLS))

    def tool_variable(self, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The template's variable for these tools."""
        names = chat_template.names(self.template or "")
        return {next((name for name in _TOOLS if name in names), "tools"): list(tools)}

    def without_tools(self) -> "PromptFormat":
        """The format with prompts that offer no tools."""
        own = self.tool_variable(())
        tokens = {name: value for name, value in self.template_tokens.items() if name not in own}
        return replace(self, template_tokens=tokens, tool_text="", offered=())

    def _with_written_tools(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.has_tools or not (self.tool_text or written_tools.has_tools(messages)):
            return messages
        return written_tools.as_text(
            messages, self.tool_text, lambda text: disarm(text, written_tools.LABELS)
        )

    @property
    def thinks(self) -> bool:
        """Whether the format has the marks of a thought, so that an answer may begin with one."""
        return thought_marks.are_in(self.template or repr(self.parts), self.thinking)

    @property
    def _shown_tokens(self) -> tuple[str, ...]:
        marks = thought_marks.tokens_of(self.thinking) if self.thinks else ()
        return tuple(dict.fromkeys((*self.shown_tokens, *marks)))

    def _thinking(self, text: str) -> ThinkingMarks | None:
        """Where the answer to a prompt begins: within a thought, perhaps before one, or neither."""
        opening, closing = self.thinking
        end = text.rstrip()
        if not self.thinks or end.endswith(closing):
            return None
        return ThinkingMarks(opening, closing, inside=end.endswith(opening.rstrip()))

    def extend(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that lets the model continue its own last, unfinished answer."""
        *before, answer = messages
        prompt = self.render(before)
        lead = self.parts.assistant.partition("{text}")[0] if self.parts else ""
        lead += self._after_thought(prompt)
        labels = self.parts.labels if self.parts else self.labels
        start = len(prompt.text) + len(lead)
        text = prompt.text + lead + substitute(disarm(answer.text, labels), self.escapes)
        quoted = (*prompt.quoted, (start, len(text)))
        return replace(
            prompt,
            text=text,
            messages=tuple(messages),
            quoted=quoted,
            thinking=None,
            begun=answer.text,
        )

    def _after_thought(self, prompt: Prompt) -> str:
        """What goes before an answer that was begun, where the prompt opens a thought or none of
        harmony's channels.
        """
        if self.thinking[0] == thought_marks.CHANNELS[0]:
            return thought_marks.ANSWER_CHANNEL
        marks = prompt.thinking
        return f"\n{marks.closing}\n\n" if marks and marks.inside else ""

    def fingerprint(self) -> str:
        """A short hash of everything that decides how a conversation is written."""
        facts = (self.parts, self.template, self.stops, self.stop_ids, self.escapes)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _write_template(
    form: PromptFormat, messages: tuple[Message, ...]
) -> tuple[str, tuple[Range, ...], tuple[Range, ...]]:
    """The text, what the model writes in it, and what people wrote."""
    system, spoken = split_system(messages)
    form = _map_variables(form, lambda text: disarm(text, form.labels))
    records = [_record(message, form) for message in spoken]
    records = tool_records.for_template(records, form.template or "")
    if system:
        records = _with_system(form, disarm(system, form.labels), records)
    wants_answer = spoken[-1].role != "assistant"
    text = _run_template(form, records, wants_answer)
    quoted = _find_quoted(form, text, records, wants_answer)
    if quoted is None:
        # The template rewrites what it is given, so the end of a message cannot be located: every
        # mark in a message is broken.
        marks = chat_template.labels(form.template or "")
        records = [map_texts(lambda text: disarm(text, marks), record) for record in records]
        form = _map_variables(form, lambda text: disarm(text, marks))
        text, quoted = _run_template(form, records, wants_answer), []
    learn = () if wants_answer else _answers(form, records)
    return text, learn, tuple(quoted)


def _record(message: Message, form: PromptFormat) -> dict[str, Any]:
    """A message as chat templates expect it."""
    record: dict[str, Any] = {
        "role": message.role,
        "content": disarm(plain_text(message), form.labels),
    }
    calls = map_texts(lambda text: disarm(text, form.labels), message.calls)
    if message.call_id:
        record["tool_call_id"] = message.call_id
    return record | ({"tool_calls": calls} if calls else {})


def _map_variables(form: PromptFormat, change: Callable[[str], str]) -> PromptFormat:
    """Change every text in the template's variables, except the checkpoint's own tokens."""
    tokens = {
        name: value if name.endswith("_token") else map_texts(change, value)
        for name, value in form.template_tokens.items()
    }
    return replace(form, template_tokens=tokens) if tokens != form.template_tokens else form


def _with_system(
    form: PromptFormat, system: str, records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add the system text as a message of its own.

    If the template refuses that role (Gemma 2), the text goes before the first request.
    """
    separate = [{"role": "system", "content": system}, *records]
    try:
        _run_template(form, separate, True)
        return separate
    except Mismatch:
        first = {"role": "user", "content": f"{system}\n\n{records[0]['content']}"}
        return [first, *records[1:]]


def _answers(form: PromptFormat, records: list[dict[str, Any]]) -> tuple[Range, ...]:
    """The range of each answer with its end mark."""
    return tuple(
        _range_of_answer(form, records, index)
        for index, record in enumerate(records)
        if record["role"] == "assistant"
    )


def _range_of_answer(form: PromptFormat, records: list[dict[str, Any]], index: int) -> Range:
    """What the answer at `index` adds to its prompt, without white space after the end mark."""
    before = _run_template(form, records[:index], True)
    after = _run_template(form, records[: index + 1], False)
    if not after.startswith(before):
        raise Mismatch(
            f"the chat template of `{form.name}` writes an answer differently from the prompt that"
            " asks for it",
            "it cannot be used for training",
        )
    answer = after[len(before) :]
    return len(before), len(after.rstrip()) if answer.strip() else len(after)


def _find_quoted(
    form: PromptFormat, text: str, records: list[dict[str, Any]], wants_answer: bool
) -> list[Range] | None:
    """The ranges of messages, tools and arguments; None if the template rewrites them."""
    places = Placeholders([record["content"] for record in records])
    hidden = [
        {
            **map_texts(places.of_text, record),
            # Templates treat an empty message differently.
            "content": places.of_message(index) if record["content"] else "",
        }
        for index, record in enumerate(records)
    ]
    shown = _run_template(_map_variables(form, places.of_text), hidden, wants_answer)
    return places.find(shown, text)


def _run_template(form: PromptFormat, records: list[dict[str, Any]], wants_answer: bool) -> str:
    variables = {"messages": records, "add_generation_prompt": wants_answer, **form.template_tokens}
    return chat_template.run(form.template or "", variables, form.name)
