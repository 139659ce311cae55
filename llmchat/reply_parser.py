"""What an engine is asked, and what it says read as thoughts and an answer."""

from msgspec import Struct

from llmchat.engines import Chunk, Finish, Prefill, Sampling
from llmchat.engines.stream_filters import ThoughtFilter, Unescape
from llmchat.presets import Preset
from llmchat.prompt import Prompt
from llmchat.window import Window


class Thought(Struct, frozen=True):
    """A piece of what a model thinks aloud before it answers. It is shown, and never sent again."""

    text: str


class Asked(Struct, frozen=True):
    """What an engine is to be asked. resumed: it goes on with an answer that is begun already."""

    window: Window
    prompt: Prompt
    sampling: Sampling
    resumed: bool


class Reading:
    """The second half of the way: what an engine says, as thoughts and an answer without white space at its ends.

    Feed it the engine's events as they come. A cue such as `ASSISTANT:` makes models begin with a space; some templates open the thinking
    themselves, at the end of the prompt.
    """

    def __init__(self, preset: Preset, asked: Asked):
        marks = preset.format.thinking
        self._parts = ThoughtFilter(marks, inside=asked.prompt.text.rstrip().endswith(marks[0]))
        self._plain = Unescape(asked.prompt.unescapes)
        self._begun = asked.resumed
        self._held = ""

    def feed(self, event: Chunk | Prefill | Finish) -> "list[Thought | Chunk | Prefill | Finish]":
        if isinstance(event, Prefill):
            return [event]
        if isinstance(event, Chunk):
            return [*self._shown(self._parts.feed(self._plain.feed(event.text)))]
        return [*self._shown([*self._parts.feed(self._plain.flush()), *self._parts.flush()]), event]

    def _shown(self, pieces: list[tuple[bool, str]]) -> list[Thought | Chunk]:
        shown = (Thought(text) if thought else self._trimmed(text) for thought, text in pieces)
        return [event for event in shown if event.text]

    def _trimmed(self, text: str) -> Chunk:
        """White space is held back until a word follows it; before the first word it is dropped."""
        text = self._held + text if self._begun else text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._begun = self._begun or bool(shown)
        return Chunk(shown)
