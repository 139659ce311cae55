"""Parse the events of an engine into thinking, answer text and tool calls."""

from msgspec import Struct

from llmchat import thought_marks, tool_syntax
from llmchat.calls import Call
from llmchat.engines import Chunk, Finish, Prefill, Sampling
from llmchat.engines.channel_filter import ChannelFilter
from llmchat.engines.stream_filters import ThoughtFilter, Unescape
from llmchat.presets import Preset
from llmchat.prompt import Prompt
from llmchat.window import Window


class Thinking(Struct, frozen=True):
    """A piece of a model's reasoning before its answer. It is shown and never sent back."""

    text: str


class ToolCalls(Struct, frozen=True):
    """Calls of tools that the model made, complete and in order."""

    calls: tuple[Call, ...]


ReplyEvent = Thinking | Chunk | ToolCalls | Prefill | Finish


class GenerationRequest(Struct, frozen=True):
    """What an engine is given for one answer. resumed: the prompt ends with the answer's start."""

    window: Window
    prompt: Prompt
    sampling: Sampling
    resumed: bool


class ReplyParser:
    """Turns the engine's events into thinking and an answer without white space at its ends.

    White space at the start comes from cues such as `ASSISTANT:`, after which models begin with a
    space. Some templates open the thinking themselves, at the end of the prompt. Calls are parsed
    if the prompt offers tools, and passed on from engines whose servers parse them. An answer with
    a structure is exact to the letter: it keeps its white space and what looks like a thought.
    """

    def __init__(self, preset: Preset, request: GenerationRequest):
        tools = request.prompt.tools
        offered = tools is not None and bool(tools.tools) and tools.choice != "none"
        self._thoughts = _thought_filter(preset.format.thinking, request.prompt, tools=offered)
        self._unescape = Unescape(request.prompt.unescapes)
        self._held_back = ""
        self._calls = tool_syntax.parser(preset, tools) if tools and offered else None
        self._exact = request.sampling.structure is not None and not offered
        thinks = request.prompt.thinking is not None
        self._started = request.resumed or (self._exact and not thinks)

    def feed(self, event: Chunk | Prefill | Finish) -> list[ReplyEvent]:
        """The events to show for an event of the engine, in order."""
        if isinstance(event, Prefill):
            return [event]
        if isinstance(event, Chunk):
            parsed = self._parse(self._split(self._unescape.feed(event.text)))
            return [*parsed, ToolCalls(event.calls)] if event.calls else parsed
        rest = self._split(self._unescape.flush())
        parsed = self._parse([*rest, *self._thoughts.flush()])
        if self._calls:
            parsed += self._answer(*self._calls.flush())
        return [*parsed, event]

    def _split(self, text: str) -> list[tuple[bool, str]]:
        """Pieces of text, each with whether it is thinking."""
        if self._exact and self._started:
            return [*self._thoughts.flush(), (False, text)]
        return self._thoughts.feed(text)

    def _parse(self, pieces: list[tuple[bool, str]]) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for thinking, text in pieces:
            if thinking:
                events.append(Thinking(text))
            else:
                events += self._answer(*(self._calls.feed(text) if self._calls else (text, ())))
        return events

    def _answer(self, text: str, calls: tuple[Call, ...]) -> list[ReplyEvent]:
        text = self._trim(text)
        shown: list[ReplyEvent] = [Chunk(text)] if text else []
        return [*shown, ToolCalls(calls)] if calls else shown

    def _trim(self, text: str) -> str:
        """Hold white space back until a word follows it; drop it before the first word."""
        text = self._held_back + text if self._started else text.lstrip()
        trimmed = text if self._exact else text.rstrip()
        self._held_back = text[len(trimmed) :]
        self._started = self._started or bool(trimmed)
        return trimmed


def _thought_filter(
    marks: thought_marks.Marks, prompt: Prompt, *, tools: bool
) -> ThoughtFilter | ChannelFilter:
    """What separates thoughts from answers between these marks. tools: calls are expected."""
    inside = prompt.text.rstrip().endswith(marks[0].rstrip())
    if marks[0] == thought_marks.CHANNELS[0]:
        return ChannelFilter(inside=inside, tools=tools)
    return ThoughtFilter(marks, inside=inside)
