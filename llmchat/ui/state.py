"""What the REPL's commands see and change."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llmchat.chat import Chat
from llmchat.conversation import material
from llmchat.engines.bounded_count import count_within
from llmchat.errors import OutOfResources
from llmchat.history import Session
from llmchat.models.opener import Opener
from llmchat.models.warm import Opened, not_here, opening_of_session
from llmchat.process.streams import MOST_ASKED
from llmchat.settings import World
from llmchat.ui import notes


@dataclass(frozen=True)
class Offer:
    """A way out of an error, taken with one key."""

    label: str
    take: Callable[[], None]


@dataclass
class Talk:
    """A chat at a terminal. `attached` goes with the next message; `thoughts` says whether thinking is shown."""

    chat: Chat
    world: World
    opener: Opener
    plain: bool = False
    thoughts: bool = True
    attached: dict[str, str] = field(default_factory=dict)
    # Put in by the REPL: the width of the terminal now, a line of text to edit, a text in the user's editor, an answer on the screen.
    width: Callable[[], int] = lambda: 80
    edit_line: Callable[[str, str], str | None] = lambda label, text: None
    edit_text: Callable[[str], str] = lambda text: text
    show: Callable[[str], None] = lambda text: None

    def say(self, line: str) -> None:
        """A line that is not the model's."""
        notes.say(self.world, line, self.width())

    def note(self, line: str) -> None:
        """A line about what happens, less important than an answer."""
        notes.note(self.world, line, self.width())

    def switch(self, **changes: object) -> None:
        """Go on with another model, adapter or kind of weights; the conversation stays. On an error all stays as it was."""
        live = (
            self.opener.adapt(self.chat.engine, str(changes["adapter"]))
            if set(changes) == {"adapter"}
            else None
        )
        opened = live or self._open(lambda: self.opener.open(waiting=True, **changes))
        # What the user has set by hand holds for the same model, not for another.
        settings, sampling = self.chat.settings, self.chat.sampling
        self._go_on_with(opened)
        if "model" not in changes:
            self.chat.sampling = sampling
            self.chat.set(settings)

    def load(self, session: Session) -> None:
        """Go on with a saved chat, its model and its settings. Without its model, which an error tells, all stays as it was."""
        same = (
            session.opens == self.chat.opens
            if session.opens
            else session.model == self.chat.preset.name
        )
        opens = opening_of_session(session, self.world)
        if opens is None:
            self.say(f"note: {not_here(session, self.chat.preset.name)}")
        elif not same:
            opened = self._open(lambda: self.opener.open_as(session.id, opens))
            self.chat.restart()
            self._go_on_with(opened)
        self.chat.open(session.id, session.settings)

    def _go_on_with(self, opened: Opened) -> None:
        self.chat.hand_over(opened.preset, opened.engine, opened.made_by, opened.opens)

    def _open(self, open_other: Callable[[], Opened]) -> Opened:
        """Another model beside this one, or, where two do not fit, in its place: then this one comes back if the other cannot be loaded."""
        try:
            return open_other()
        except OutOfResources:
            self.chat.engine = self.opener.open_later().engine
            gc.collect()
            return open_other()

    def attach(self, name: str) -> int:
        """Read a file for the next message; returns its tokens."""
        text = self.read(name)
        tokens = count_within(self.chat.engine, text, self.chat.engine.context)
        self.attached[name] = text
        return tokens

    def read(self, name: str) -> str:
        """The text of a file. `-` is a file here: stdin is the keyboard."""
        return self.world.read_text("./-" if name == "-" else name, MOST_ASKED).strip()

    def take_attached(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """The attached texts as the material of one message, and its files; none are attached any more."""
        texts = [(Path(name).name, text) for name, text in self.attached.items()]
        self.attached.clear()
        return material(
            texts if len(texts) == 1 else [(name, f"{name}:\n{text}") for name, text in texts]
        )


def files_like(word: str) -> Iterable[str]:
    """Paths that begin with a word, folders with a slash behind them."""
    path = Path(word).expanduser()
    folder, start = (path, "") if word.endswith("/") or not word else (path.parent, path.name)
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    lead = word[: len(word) - len(start)]
    for one in found:
        if one.name.startswith(start) and (start.startswith(".") or not one.name.startswith(".")):
            yield f"{lead}{one.name}{'/' if one.is_dir() else ''}"
