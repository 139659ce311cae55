"""Print the events of an answer while they arrive; the REPL and one-shot commands share it."""

from collections.abc import Callable, Iterable

from llmchat.acting import ToolStarted
from llmchat.chat import Event
from llmchat.engines import Chunk, Finish, Prefill
from llmchat.reply_parser import Thinking
from llmchat.summary import Summary
from llmchat.tools.toolbox import Result
from llmchat.ui import tool_lines
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.prefill_progress import PrefillProgress
from llmchat.ui.renderer import PlainRenderer, Renderer


class AnswerDisplay:
    """Prints one answer and keeps its text, its thinking and the results of its tool calls.

    new_renderer: makes what prints the text, anew after each tool call; None prints none. section:
    prints thinking and summaries; None prints neither. notice: prints a line about a tool call.
    ended: whether the answer came to its end.
    """

    def __init__(
        self,
        progress: PrefillProgress,
        new_renderer: Callable[[], Renderer] | None,
        section: DimmedSection | None = None,
        *,
        notice: Callable[[str], None] = lambda line: None,
        show_thinking: bool = True,
    ):
        self.text = self.thinking = ""
        self.results: list[Result] = []
        self.ended = False
        self._progress = progress
        self._new_renderer = new_renderer
        self._renderer = new_renderer() if new_renderer else None
        self._section = section
        self._notice = notice
        # Whether the next text follows a tool call.
        self._is_apart = False
        self._is_action = False
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
        if self._renderer:
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
            self._print_text(event.text)
        elif isinstance(event, ToolStarted):
            self.ended = False
            self._is_action = event.number == 0
            # An action's result continues its line, except where a question comes in between.
            if not self._is_action or not isinstance(self._renderer, PlainRenderer):
                self.finish()
            self._notice(tool_lines.started(event.call, event.number))
        elif isinstance(event, Result):
            self.results.append(event)
            self._notice(tool_lines.finished(event))
            self._is_apart = not self._is_action
        elif isinstance(event, Finish):
            self.ended = True
            self.finish()

    def _print_text(self, text: str) -> None:
        if self._is_apart and self.text:
            self.text += "\n\n"
        self._is_apart = False
        self.text += text
        if self._renderer is None and self._new_renderer:
            self._renderer = self._new_renderer()
        if self._renderer:
            self._renderer.feed(text)

    def _print_aside(self, label: str, text: str) -> None:
        if self._section:
            self._section.feed(label, text)

    def _close_section(self) -> None:
        if self._section:
            self._section.finish()
