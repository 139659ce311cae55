"""Store a message the moment Enter is pressed, and hand out its answer afterwards.

Once prompt_toolkit returns the line, a model that is loading can block this thread for a second;
a message stored before that survives if the program is killed.
"""

from collections.abc import Generator
from contextlib import suppress

from llmchat.chat import Event
from llmchat.errors import LlmchatError, UsageError
from llmchat.ui import keywords
from llmchat.ui.input_parser import parse_input
from llmchat.ui.mentions import mentioned
from llmchat.ui.state import ReplState


class MessageSender:
    """Sends messages with the files they mention.

    unsent: a message that could not be sent, for the next prompt.
    """

    def __init__(self, state: ReplState):
        self.unsent = ""
        self._state = state
        # The line stored last, and its answer to be streamed or its error to be raised.
        self._stored: tuple[str, Generator[Event] | LlmchatError] | None = None

    def store(self, line: str) -> None:
        """Store a line that is a message; ignore commands and lines that are invalid."""
        if self._state.documents.names:
            # What is found is a part of the message, so it is stored after the search.
            return
        with suppress(UsageError):
            text = parse_input(line, self._state.world.env)
            if isinstance(text, str) and text.strip() and not self._waits(text):
                self._stored = line, self._send(text)

    def _waits(self, text: str) -> bool:
        """Whether a text waits for the model to load, which counts the tokens of its files."""
        files = self._state.attached or mentioned(keywords.with_mentions(text))
        return bool(files) and self._state.count("") is None

    def forget_unsent(self) -> None:
        """Drop the message that could not be sent, unless it is the line just stored."""
        if self._stored is None:
            self.unsent = ""

    def answer(self, line: str, text: str) -> Generator[Event]:
        """The answer to a message, which is stored now if `store` has not done so."""
        stored, self._stored = self._stored, None
        result = stored[1] if stored and stored[0] == line else self._send(text)
        if isinstance(result, LlmchatError):
            raise result
        return result

    def _send(self, text: str) -> Generator[Event] | LlmchatError:
        try:
            text = keywords.with_mentions(text)
            for name, given in [(name, self._state.read(name)) for name in mentioned(text)]:
                self._state.attach_given(name, given)
            if time := keywords.time_of(text, self._state.world):
                self._state.attached["time"] = time
            return self._state.ask(text)
        except LlmchatError as error:
            self.unsent = text
            return error
