"""Parse the events of an engine into thinking and answer text."""

from msgspec import Struct

from llmchat.engines import Chunk, Finish, Prefill, Sampling
from llmchat.engines.stream_filters import ThoughtFilter, Unescape
from llmchat.presets import Preset
from llmchat.prompt import Prompt
from llmchat.window import Window


class Thinking(Struct, frozen=True):
    """A piece of a model's reasoning before its answer. It is shown and never sent back."""

    text: str


class GenerationRequest(Struct, frozen=True):
    """What an engine is given for one answer. resumed: the prompt ends with the answer's start."""

    window: Window
    prompt: Prompt
    sampling: Sampling
    resumed: bool


class ReplyParser:
    """Turns the engine's events into thinking and an answer without white space at its ends.

    White space at the start comes from cues such as `ASSISTANT:`, after which models begin with a
    space. Some templates open the thinking themselves, at the end of the prompt.
    """

    def __init__(self, preset: Preset, request: GenerationRequest):
        marks = preset.format.thinking
        thinking = request.prompt.text.rstrip().endswith(marks[0])
        self._thoughts = ThoughtFilter(marks, inside=thinking)
        self._unescape = Unescape(request.prompt.unescapes)
        self._started = request.resumed
        self._held_back = ""

    def feed(self, event: Chunk | Prefill | Finish) -> "list[Thinking | Chunk | Prefill | Finish]":
        """The events to show for an event of the engine, in order."""
        if isinstance(event, Prefill):
            return [event]
        if isinstance(event, Chunk):
            return [*self._parse(self._thoughts.feed(self._unescape.feed(event.text)))]
        rest = self._thoughts.feed(self._unescape.flush())
        return [*self._parse([*rest, *self._thoughts.flush()]), event]

    def _parse(self, pieces: list[tuple[bool, str]]) -> list[Thinking | Chunk]:
        events = [
            Thinking(text) if thinking else Chunk(self._trim(text)) for thinking, text in pieces
        ]
        return [event for event in events if event.text]

    def _trim(self, text: str) -> str:
        """Hold white space back until a word follows it; drop it before the first word."""
        text = self._held_back + text if self._started else text.lstrip()
        trimmed = text.rstrip()
        self._held_back = text[len(trimmed) :]
        self._started = self._started or bool(trimmed)
        return trimmed
