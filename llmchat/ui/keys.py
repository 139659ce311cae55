"""Keys and completion of the input line."""

import re
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TextIO

from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, emacs_mode, is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from llmchat.errors import LlmchatError
from llmchat.ui import mentions
from llmchat.ui.pastes import Pastes
from llmchat.ui.slash import registry
from llmchat.ui.state import Talk

BLOCK = '"""'


class Chosen(Exception):
    """An offer was taken with its number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _offer_open(number: int, offered: Callable[[], int]) -> bool:
    """Whether a digit takes an offer: nothing is typed yet, and there are that many offers."""
    return not get_app().current_buffer.text and number <= offered()


def bindings(offered: Callable[[], int] = lambda: 0, pastes: Pastes | None = None) -> KeyBindings:
    """Enter sends, but not inside a block; Alt+Enter and Ctrl-J make a line; Ctrl-C clears; Ctrl-G and Ctrl-X Ctrl-E open the editor.

    A paste is one event of its own and never sends itself; a long one is shown by its size. Ctrl-P on an empty line lists the
    sessions. While Ctrl-R searches, the keys are the library's: Enter takes what was found, Ctrl-C and Ctrl-G leave the search.
    offered: how many offers one key takes now, on an empty line; see Chosen.
    """
    keys = KeyBindings()
    pasted = pastes or Pastes()

    @Condition
    def empty() -> bool:
        return not get_app().current_buffer.text

    @keys.add(Keys.BracketedPaste, filter=~is_searching)
    def _paste(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(pasted.shown(event.data))

    @keys.add("c-p", filter=empty & ~is_searching)
    def _sessions(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("/load ")
        event.current_buffer.start_completion(select_first=False)

    @keys.add("enter", filter=~is_searching)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=emacs_mode & ~is_searching)
    @keys.add("c-j", filter=~is_searching)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=~is_searching)
    def _clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    @keys.add("c-g", filter=~is_searching)
    @keys.add("c-x", "c-e", filter=~is_searching)
    def _edit(event: KeyPressEvent) -> None:
        event.current_buffer.text = pasted.whole(event.current_buffer.text)
        event.current_buffer.open_in_editor(validate_and_handle=False)

    @keys.add("left", filter=empty & ~is_searching)
    def _earlier_answer(event: KeyPressEvent) -> None:
        event.app.exit(result="/alt prev")

    @keys.add("right", filter=empty & ~is_searching)
    def _next_answer(event: KeyPressEvent) -> None:
        event.app.exit(result="/alt next")

    for number in range(1, 10):
        open_now = Condition(partial(_offer_open, number, offered))

        @keys.add(str(number), filter=open_now)
        def _take_offer(event: KeyPressEvent) -> None:
            event.app.exit(exception=Chosen(int(event.data)))

    return keys


@contextmanager
def kept_terminal(stdin: TextIO, off: int = 0) -> Iterator[None]:
    """Put the terminal's modes back at the end, however it comes; until then the local modes `off` are switched off.

    A signal may end the program between two steps of the library that put them back otherwise.
    """
    try:
        terminal = stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        yield
        return
    changed = list(before)
    changed[3] &= ~off
    termios.tcsetattr(terminal, termios.TCSANOW, changed)
    try:
        yield
    finally:
        # A terminal that was hung up has no modes any more.
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def without_echo(stdin: TextIO) -> AbstractContextManager[None]:
    """Keep keys that are pressed meanwhile off the screen, where an answer is being drawn. They wait for the next input line."""
    return kept_terminal(stdin, termios.ECHO)


def open_block(text: str) -> bool:
    return text.lstrip().startswith(BLOCK) and text.count(BLOCK) % 2 == 1


def without_block(text: str) -> str:
    """The text without the quotes of a block."""
    stripped = text.strip()
    return (
        stripped[len(BLOCK) : -len(BLOCK)].strip("\n")
        if stripped.startswith(BLOCK)
        and stripped.endswith(BLOCK)
        and len(stripped) >= 2 * len(BLOCK)
        else text
    )


class CommandCompleter(Completer):
    """Commands, then what the command at hand offers."""

    def __init__(self, talk: Talk):
        self._talk = talk

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        line = document.text_before_cursor
        match = re.fullmatch(r"/(\w*)(?:\s+(.*))?", line)
        if not match:
            for path, replaced in mentions.completions(line):
                yield Completion(path, -replaced)
            return
        name, rest = match[1], match[2]
        if rest is None:
            for command in registry:
                if command.name.startswith(name):
                    yield Completion(
                        command.name,
                        -len(name),
                        display=f"/{command.name}",
                        display_meta=command.help,
                    )
            return
        found = registry.get(name)
        try:
            offered = list(found.complete(self._talk, rest)) if found and found.complete else []
        except (LlmchatError, OSError):
            # No offer is better than a torn input line.
            return
        for offer in offered:
            text, meaning = (offer, "") if isinstance(offer, str) else offer
            if text.startswith(rest):
                yield Completion(text, -len(rest), display_meta=meaning)
