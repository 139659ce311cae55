"""The line that a user types into: keys, completion, pastes, and the lines of earlier chats."""

from collections.abc import Callable
from contextlib import suppress

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import DynamicStyle

from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import UsageError
from llmchat.settings import private_file
from llmchat.ui import paste_parser, prompt_style, status
from llmchat.ui.keys import CommandCompleter, bindings
from llmchat.ui.pastes import ExpandedHistory, Pastes
from llmchat.ui.state import ReplState
from llmchat.ui.switcher import choose_session


class LineHistory(FileHistory):
    """Typed lines in a file. A line that cannot be written, on a full disk, is left out."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


class PromptLine:
    """Reads lines. A long paste is shown by its size and expanded in what `read` returns.

    open_actions: how many quick actions a number key can take now.
    """

    def __init__(self, state: ReplState, open_actions: Callable[[], int], *, vi: bool = False):
        self._state = state
        self._pastes = Pastes(state.count)
        self._session = self._make_session(open_actions, vi)
        self.buffer = self._session.default_buffer
        paste_parser.use(self._session.app.input)

    def read(self, default: str | Document = "") -> str:
        """Read a line.

        Raises EOFError, KeyboardInterrupt, QuickActionChosen or SwitcherWanted.
        """
        self._session.app.erase_when_done = False
        line = self._pastes.expand(self._session.prompt(default=default))
        self._pastes.forget()
        return line

    def choose_session(self) -> str | None:
        """Let the user choose a saved chat in place of the line; returns its id, or None."""
        chat, world = self._state.chat, self._state.world
        app = self._session.app
        return choose_session(chat.history, world, chat.session, app.input, app.output)

    def width(self) -> int:
        return self._session.output.get_size().columns

    def on_change(self, call: Callable[[], None]) -> None:
        """Call whenever the text of the line changes."""
        self.buffer.on_text_changed += lambda _: call()

    def on_enter(self, call: Callable[[str], None]) -> None:
        """Call with the expanded line when Enter is pressed, before `read` returns."""
        accept = self.buffer.accept_handler

        def call_and_accept(typed: Buffer) -> bool:
            call(self._pastes.expand(typed.text))
            return accept(typed) if accept else False

        self.buffer.accept_handler = call_and_accept

    def start_after_first_prompt(self, engine: LoadingEngine) -> None:
        """Load the model once the prompt is on the screen, and redraw the prompt when it is ready.

        Importing torch earlier would delay the prompt.
        """
        app = self._session.app

        def start(_: object) -> None:
            engine.start()
            # The handler must not keep the engine in memory after a switch to another one.
            app.after_render -= start

        engine.when_ready(app.invalidate)
        app.after_render += start

    def _make_session(self, open_actions: Callable[[], int], vi: bool) -> PromptSession[str]:
        state = self._state
        env = state.world.env
        # For a dumb terminal prompt_toolkit would send control sequences before it finds out.
        dumb_output = PlainTextOutput(state.world.stdout) if env.get("TERM") == "dumb" else None
        return PromptSession(
            [("class:prompt", "> ")],
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "  " if wrapped else "… ",
            key_bindings=bindings(open_actions, self._pastes, switches=True),
            vi_mode=vi,
            completer=CommandCompleter(state),
            complete_style=CompleteStyle.MULTI_COLUMN,
            complete_while_typing=False,
            history=ExpandedHistory(_earlier_lines(state), self._pastes),
            style=DynamicStyle(lambda: prompt_style.style_of(state.world)),
            bottom_toolbar=lambda: status.bottom_line(state.chat, state.width()),
            color_depth=prompt_style.depth_of(state.world),
            enable_open_in_editor=False,
            enable_suspend=True,
            output=dumb_output,
            reserve_space_for_menu=4,
        )


def _earlier_lines(state: ReplState) -> FileHistory | InMemoryHistory:
    """The lines typed in earlier chats, for ↑ and Ctrl-R; none for a chat that is not saved."""
    if state.chat.history.path is None:
        return InMemoryHistory()
    path = state.world.state / "typed"
    private_file(path)
    return LineHistory(str(path))


def edit_line(label: str, text: str) -> str | None:
    """Edit a text in place: Enter accepts it, Ctrl-C returns None."""
    session = PromptSession[str](f"{label}: ", key_bindings=bindings(), multiline=True)
    try:
        return str(session.prompt(default=text))
    except (KeyboardInterrupt, EOFError):
        return None


def edit_text(text: str) -> str:
    """Edit a text in the editor of VISUAL or EDITOR; unchanged where nothing was saved."""
    try:
        return click.edit(text, extension=".md") or text
    except click.ClickException as error:
        raise UsageError(error.format_message(), "set VISUAL or EDITOR to your editor") from error
