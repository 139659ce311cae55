"""Print the events of an answer while they arrive; the REPL and one-shot commands share it."""

from collections.abc import Iterable

from llmchat.chat import Event, Summary
from llmchat.engines import Chunk, Finish, Prefill
from llmchat.reply_parser import Thinking
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.prefill_progress import PrefillProgress
from llmchat.ui.renderer import Renderer


class AnswerDisplay:
    """Prints one answer and keeps its text and thinking.

    renderer: prints the text; None prints none. section: prints thinking and summaries; None
    prints neither. ended: whether the answer came to its end.
    """

    def __init__(
        self,
        progress: PrefillProgress,
        renderer: Renderer | None,
        section: DimmedSection | None = None,
        *,
        show_thinking: bool = True,
    ):
        self.text = self.thinking = ""
        self.ended = False
        self._progress = progress
        self._renderer = renderer
        self._section = section
        self._show_thinking = show_thinking

    def show(self, events: Iterable[Event]) -> None:
        """Print the events. An interrupted answer also needs `finish`."""
        try:
            for event in events:
                self._show(event)
        finally:
            self._progress.clear()
            self._close_section()

    def finish(self) -> None:
        """Complete the last line of the text, once."""
        if self._renderer and self.text:
            self._renderer.finish()
        self._renderer = None

    def _show(self, event: Event) -> None:
        if isinstance(event, Prefill):
            self._progress.feed(event)
            return
        self._progress.clear()
        if isinstance(event, Thinking):
            self.thinking += event.text
            self._print_aside("thinking", event.text if self._show_thinking else "")
        elif isinstance(event, Summary):
            self._print_aside("summary", event.text)
        else:
            self._close_section()
        if isinstance(event, Chunk):
            self.text += event.text
            if self._renderer:
                self._renderer.feed(event.text)
        elif isinstance(event, Finish):
            self.ended = True
            self.finish()

    def _print_aside(self, label: str, text: str) -> None:
        if self._section:
            self._section.feed(label, text)

    def _close_section(self) -> None:
        if self._section:
            self._section.finish()
