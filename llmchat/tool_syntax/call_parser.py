"""Separates an answer, piece by piece, into visible text and tool calls."""

import re
import uuid
from collections.abc import Sequence

from llmchat.calls import Call, ToolRequest
from llmchat.chat_template.quoting import map_texts
from llmchat.tool_syntax import schemas
from llmchat.tool_syntax.call_reader import NamedArguments, calls_of, read_block
from llmchat.tool_syntax.cursor import Cursor, Incomplete, Invalid
from llmchat.tool_syntax.dialect import Dialect

# A call longer than this is parsed again only when a character arrives that can end it.
_EAGER = 400
_ENDS = re.compile(r"[>}\])|]")
_FENCE = re.compile(r"\s*```\w*\s*(.*?)\s*```\s*\Z", re.DOTALL)
# The start of an answer that may be JSON as a whole, and text that may still become such a start.
_JSON_START = re.compile(r"\s*(?:```\w*\s*)?(?:\[\s*)?(?:\{\s*(?:\"(\w*)(\"?)|\Z)|\Z)")
_UNDECIDED = re.compile(r"\s*(?:`{0,2}|```\w*\s*)")
_FENCE_MARK = "```"
_OPENING_FENCE = re.compile(r"```\w*\s*")
_BETWEEN_OBJECTS = re.compile(r"\s*[;,]?\s*")
_FIRST_KEYS = ("name", "arguments", "parameters", "type", "function", "id")


class CallParser:
    """Takes the answer in pieces. Text is never lost: what is not a call of a known tool is text.

    Whatever the dialect, an answer that is JSON as a whole, also in a Markdown fence, is a call
    too: several models write that although their template teaches marks. Not so where answers
    have a structure of their own.
    """

    def __init__(self, dialect: Dialect, request: ToolRequest):
        self._dialect = dialect
        self._takes_json = dialect.plain or not request.structured
        self._known = {tool["function"]["name"]: schemas.parameters(tool) for tool in request.tools}
        self._held = ""
        self._checked = 0
        # Until something decides that the answer starts with neither bare JSON nor a bare call.
        self._starting = True
        texts = [*_trigger_texts(dialect), *([_FENCE_MARK] if self._takes_json else [])]
        self._trigger_texts = sorted(texts, key=len, reverse=True)
        self._triggers = re.compile("|".join(map(re.escape, self._trigger_texts)))

    def feed(self, text: str) -> tuple[str, tuple[Call, ...]]:
        """The text that can be shown now, and the calls that are complete."""
        self._held += text
        if len(self._held) > _EAGER and self._checked and not _ENDS.search(text):
            return "", ()
        return self._advance(final=False)

    def flush(self) -> tuple[str, tuple[Call, ...]]:
        """The rest, at the end of the answer."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> tuple[str, tuple[Call, ...]]:
        self._checked = 0
        if self._starting and (calls := self._start(final)) is not None:
            return "", tuple(map(_numbered, calls))
        visible, calls = "", list[NamedArguments]()
        while (found := self._next_trigger(final)) is not None:
            visible += self._take(found)
            try:
                calls += self._read_at_trigger(final)
            except Incomplete:
                self._checked = len(self._held)
                break
            except Invalid:
                visible += self._take(1)
        else:
            visible += self._take(len(self._held) - (0 if final else self._undecided()))
        return visible, tuple(map(_numbered, calls))

    def _start(self, final: bool) -> list[NamedArguments] | None:
        """The calls of an answer that is nothing else; none while undecided, None if it is text."""
        for mark in self._dialect.drops:
            # The prompt ends with the first part of the mark, as a call's would begin.
            rest = mark.removeprefix(self._dialect.before)
            if self._dialect.at_start and self._held.startswith(rest):
                self._starting, self._held = False, self._held[len(rest) :]
                return None
        calls = self._bare_call(final) if self._dialect.at_start else None
        if calls is None and self._takes_json:
            calls = self._bare_json(final)
        if calls or calls is None:
            self._starting = False
        return calls

    def _bare_json(self, final: bool) -> list[NamedArguments] | None:
        if not final:
            return [] if self._may_be_json() else None
        fenced = _FENCE.match(self._held)
        try:
            calls = _json_calls(fenced[1] if fenced else self._held, self._known)
        except (Invalid, Incomplete):
            return None
        self._held = ""
        return calls

    def _may_be_json(self) -> bool:
        if match := _JSON_START.match(self._held):
            key, closed = match[1], match[2]
            if key is None:
                return True
            return any(one == key if closed else one.startswith(key) for one in _FIRST_KEYS)
        return bool(_UNDECIDED.fullmatch(self._held))

    def _bare_call(self, final: bool) -> list[NamedArguments] | None:
        """A call without an opening mark, which is the whole answer."""
        text = "".join(self._held[:_EAGER].split())
        starts = [self._dialect.open + name for name in self._known]
        starts += [mark.removeprefix(self._dialect.before).strip() for mark in self._dialect.drops]
        if not any(text.startswith(one) or one.startswith(text) for one in starts):
            return None
        cursor = Cursor(self._held, 0, final)
        try:
            calls = read_block(cursor, self._dialect, self._known)
            cursor.skip_space()
        except Incomplete:
            self._checked = len(self._held)
            return []
        except Invalid:
            return None
        self._held = self._held[cursor.position :]
        return calls

    def _next_trigger(self, final: bool) -> int | None:
        """Where the next text begins that may begin a call."""
        match = self._triggers.search(self._held) if self._triggers.pattern else None
        return match.start() if match else None

    def _read_at_trigger(self, final: bool) -> list[NamedArguments]:
        """Read calls from the start of the held text, or a mark that is not shown."""
        cursor = Cursor(self._held, 0, final)
        for mark in self._dialect.drops:
            if cursor.accept(mark):
                self._held = self._held[len(mark) :]
                return []
        if self._held.startswith(_FENCE_MARK):
            calls = self._read_fenced(cursor)
        else:
            calls = read_block(cursor, self._dialect, self._known)
        self._held = self._held[cursor.position :]
        return calls

    def _read_fenced(self, cursor: Cursor) -> list[NamedArguments]:
        """The calls in a Markdown fence that holds nothing else."""
        if not (self._may_be_json() if not cursor.final else _JSON_START.match(self._held)):
            raise Invalid
        cursor.match(_OPENING_FENCE)
        calls, closed = list[NamedArguments](), False
        while not closed:
            calls += calls_of(cursor.json_value(), self._known)
            cursor.match(_BETWEEN_OBJECTS)
            closed = cursor.accept(_FENCE_MARK)
        return calls

    def _undecided(self) -> int:
        """The length of the end of the held text that a trigger may begin with."""
        longest = 0
        for trigger in self._trigger_texts:
            for size in range(min(len(trigger) - 1, len(self._held)), longest, -1):
                if self._held.endswith(trigger[:size]):
                    longest = size
                    break
        return longest

    def _take(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text


def _trigger_texts(dialect: Dialect) -> Sequence[str]:
    """Texts that may begin a call, or are not shown. A dialect without marks has none."""
    first = (dialect.open.strip() or dialect.before.strip()).partition("\n")[0]
    begins = () if dialect.at_start and not dialect.before else (first, *dialect.aliases)
    return [text for text in (*begins, *dialect.drops) if text]


def _json_calls(text: str, known: dict[str, schemas.Schema]) -> list[NamedArguments]:
    """The calls of a text that is JSON values in sequence, and nothing else."""
    cursor, calls = Cursor(text, 0, True), list[NamedArguments]()
    cursor.skip_space()
    while not cursor.at_end:
        calls += calls_of(cursor.json_value(), known)
        cursor.match(_BETWEEN_OBJECTS)
    if not calls:
        raise Invalid
    return calls


def _numbered(call: NamedArguments) -> Call:
    name, arguments = call
    return Call(f"call_{uuid.uuid4().hex[:24]}", name, map_texts(_well_formed, arguments))


def _well_formed(text: str) -> str:
    """Without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
