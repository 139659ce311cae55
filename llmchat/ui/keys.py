"""Keys and completion of the prompt line."""

import re
from collections.abc import Callable, Iterable
from functools import partial

from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, Filter, emacs_mode, has_completions, is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from llmchat.errors import LlmchatError
from llmchat.ui import mentions
from llmchat.ui.pastes import Pastes
from llmchat.ui.slash.registry import registry
from llmchat.ui.state import ReplState

BLOCK = '"""'


class SwitcherWanted(Exception):
    """Ctrl-P: the saved chats are to be listed. typed: the line so far, which comes back."""

    def __init__(self, typed: Document):
        super().__init__(typed.text)
        self.typed = typed


class QuickActionChosen(Exception):
    """A number key took a quick action."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _no_actions() -> int:
    return 0


def bindings(
    open_actions: Callable[[], int] = _no_actions,
    pastes: Pastes | None = None,
    *,
    switches: bool = False,
) -> KeyBindings:
    """The keys of a prompt line; while Ctrl-R searches, prompt_toolkit's own keys apply.

    open_actions: how many quick actions a number key can take on an empty line, by raising
    QuickActionChosen. switches: whether Ctrl-P raises SwitcherWanted.
    """
    keys = KeyBindings()
    empty = Condition(_is_empty)
    _bind_sending(keys)
    _bind_editing(keys, pastes or Pastes())
    _bind_navigation(keys, empty & ~is_searching)
    if switches:
        keys.add("c-p", filter=~is_searching & ~has_completions)(_want_switcher)
    for number in range(1, 10):
        is_open = Condition(partial(_is_open, number, open_actions))
        keys.add(str(number), filter=is_open)(_choose_action)
    return keys


def _is_empty() -> bool:
    return not get_app().current_buffer.text


def _is_open(number: int, open_actions: Callable[[], int]) -> bool:
    return _is_empty() and number <= open_actions()


def _choose_action(event: KeyPressEvent) -> None:
    event.app.exit(exception=QuickActionChosen(int(event.data)))


def _want_switcher(event: KeyPressEvent) -> None:
    event.app.erase_when_done = True
    event.app.exit(exception=SwitcherWanted(event.current_buffer.document))


def _bind_sending(keys: KeyBindings) -> None:
    """Enter sends, but not inside a block; Alt+Enter and Ctrl-J make a line; Ctrl-C clears."""

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


def _bind_editing(keys: KeyBindings, pastes: Pastes) -> None:
    """A paste never sends itself; Ctrl-G and Ctrl-X Ctrl-E open the editor."""

    @keys.add(Keys.BracketedPaste, filter=~is_searching)
    def _paste(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(pastes.shorten(event.data))

    @keys.add("c-g", filter=~is_searching)
    @keys.add("c-x", "c-e", filter=~is_searching)
    def _edit(event: KeyPressEvent) -> None:
        event.current_buffer.text = pastes.expand(event.current_buffer.text)
        event.current_buffer.open_in_editor(validate_and_handle=False)


def _bind_navigation(keys: KeyBindings, empty: Filter) -> None:
    """On an empty line, ← and → show other answers."""

    @keys.add("left", filter=empty)
    def _previous_answer(event: KeyPressEvent) -> None:
        event.app.exit(result="/alt prev")

    @keys.add("right", filter=empty)
    def _next_answer(event: KeyPressEvent) -> None:
        event.app.exit(result="/alt next")


def open_block(text: str) -> bool:
    return text.lstrip().startswith(BLOCK) and text.count(BLOCK) % 2 == 1


def without_block(text: str) -> str:
    """Remove the quotes around a block; return other texts unchanged."""
    stripped = text.strip()
    quoted = stripped.startswith(BLOCK) and stripped.endswith(BLOCK)
    if not quoted or len(stripped) < 2 * len(BLOCK):
        return text
    return stripped[len(BLOCK) : -len(BLOCK)].strip("\n")


class CommandCompleter(Completer):
    """Completes slash commands, their arguments, and the files that a message mentions."""

    def __init__(self, state: ReplState):
        self._state = state

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        line = document.text_before_cursor
        match = re.fullmatch(r"/(\w*)(?:\s+(.*))?", line)
        if not match:
            for path, replaced in mentions.completions(line):
                yield Completion(path, -replaced)
        elif match[2] is None:
            yield from _commands(match[1])
        else:
            yield from self._arguments(match[1], match[2])

    def _arguments(self, name: str, typed: str) -> Iterable[Completion]:
        try:
            command = registry.get(name)
            if command is None or command.complete is None:
                return
            candidates = list(command.complete(self._state, typed))
        except (LlmchatError, OSError):
            # An error here would tear the prompt line; no completion is better.
            return
        for candidate in candidates:
            text, meaning = (candidate, "") if isinstance(candidate, str) else candidate
            if text.startswith(typed):
                yield Completion(text, -len(typed), display_meta=meaning)


def _commands(typed: str) -> Iterable[Completion]:
    for command in registry:
        if command.name.startswith(typed):
            yield Completion(
                command.name,
                -len(typed),
                display=f"/{command.name}",
                display_meta=command.help,
            )
