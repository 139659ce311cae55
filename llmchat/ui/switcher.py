"""The list of saved chats that Ctrl-P opens in place of the prompt line.

Knows neither the prompt line nor how a session is opened; see `prompt_line` and `repl`.
"""

from collections.abc import Callable

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VerticalAlign,
    VSplit,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import Output
from prompt_toolkit.styles import DynamicStyle
from rich.text import Text

from llmchat.history import History
from llmchat.settings import World
from llmchat.ui import prompt_style
from llmchat.ui.session_list import SessionList, clean, cut, row
from llmchat.ui.wrapping import wrapped

# Rows besides the list and the preview: the search, and the keys.
_OTHER_ROWS = 2
_MOST_ROWS = 20
# Rows of the window from which on there is a preview, of one row and of three.
_PREVIEW_FROM, _LONG_PREVIEW_FROM = 12, 24
# After Esc: how long the rest of a key such as ↑ is waited for.
_ESCAPE_SECONDS = 0.05
# The longest one that fits is shown.
_KEYS = (
    "Enter opens · Esc returns · ↑ ↓ PgUp PgDn choose",
    "Enter opens · Esc returns",
    "Enter · Esc",
)


def choose_session(
    history: History, world: World, current: str | None, input: Input, output: Output
) -> str | None:
    """Let the user choose a session; returns its id, or None. What was drawn is erased.

    current: the id of the open session, which has a mark.
    """
    return _Switcher(history, world, current, input, output).app.run()


class _Switcher:
    def __init__(
        self, history: History, world: World, current: str | None, input: Input, output: Output
    ):
        self._history, self._world, self._output = history, world, output
        self._sessions = SessionList(history.overviews, current)
        self._answers: dict[str, str] = {}
        self._search = Buffer(multiline=False, on_text_changed=self._find)
        self.app: Application[str | None] = Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=DynamicStyle(lambda: prompt_style.style_of(world)),
            color_depth=prompt_style.depth_of(world),
            input=input,
            output=output,
            erase_when_done=True,
        )
        self.app.ttimeoutlen = self.app.timeoutlen = _ESCAPE_SECONDS

    def _layout(self) -> Layout:
        search = BufferControl(
            self._search, input_processors=[BeforeInput("switch to: ", "class:prompt")]
        )
        count = FormattedTextControl(lambda: [("class:note", f" {self._sessions.count} ")])
        return Layout(
            HSplit(
                [
                    VSplit([Window(search, height=1), Window(count, dont_extend_width=True)],
                           height=1),
                    Window(FormattedTextControl(self._rows), height=self._exactly(self._list_rows)),
                    Window(FormattedTextControl(self._preview),
                           height=self._exactly(self._preview_rows)),
                    Window(FormattedTextControl(self._hint), height=1),
                ],
                align=VerticalAlign.TOP,
            ),
            focused_element=search,
        )  # fmt: skip

    @staticmethod
    def _exactly(rows: Callable[[], int]) -> Callable[[], Dimension]:
        return lambda: Dimension.exact(rows())

    def _keys(self) -> KeyBindings:
        keys, page = KeyBindings(), self._list_rows
        steps = {
            ("up", "c-p"): lambda: -1,
            ("down", "c-n"): lambda: 1,
            ("pageup",): lambda: -page(),
            ("pagedown",): page,
        }
        for names, step in steps.items():
            for name in names:
                keys.add(name)(lambda event, step=step: self._sessions.move(step()))

        @keys.add("enter")
        def _open(event: KeyPressEvent) -> None:
            chosen = self._sessions.chosen
            if chosen:
                event.app.exit(result=chosen.id)

        @keys.add("escape")
        @keys.add("c-c")
        @keys.add("c-g")
        @keys.add("c-d")
        def _return(event: KeyPressEvent) -> None:
            event.app.exit(result=None)

        @keys.add("c-z")
        def _suspend(event: KeyPressEvent) -> None:
            event.app.suspend_to_background()

        return keys

    def _find(self, typed: Buffer) -> None:
        self._sessions.search(typed.text)

    def _width(self) -> int:
        return self._output.get_size().columns

    def _preview_rows(self) -> int:
        rows = self._output.get_size().rows
        return 3 if rows >= _LONG_PREVIEW_FROM else int(rows >= _PREVIEW_FROM)

    def _list_rows(self) -> int:
        room = self._output.get_size().rows - _OTHER_ROWS - self._preview_rows()
        return max(1, min(room, _MOST_ROWS, len(self._sessions)))

    def _rows(self) -> StyleAndTextTuples:
        now, width = self._world.now(), self._width()
        fragments: StyleAndTextTuples = []
        for place, session, found in self._sessions.window(self._list_rows()):
            fragments += [("", "\n")] if fragments else []
            chosen, is_open = place == self._sessions.at, session.id == self._sessions.current
            fragments += row(session, found, width, now, chosen=chosen, current=is_open)
        if not fragments:
            typed = clean(self._search.text)
            return [("class:note", cut(f"  no saved chat fits `{typed}`", width))]
        return fragments

    def _preview(self) -> StyleAndTextTuples:
        """The beginning of the last answer of the chosen session."""
        chosen, width = self._sessions.chosen, self._width() - 3
        if chosen is None:
            return []
        if chosen.id not in self._answers:
            self._answers[chosen.id] = clean(self._history.last_answer(chosen.id))
        lines = [line.plain for line in wrapped(Text(self._answers[chosen.id]), max(width, 4))]
        rows = lines[: self._preview_rows()]
        if rows and len(lines) > len(rows):
            rows[-1] = cut(f"{rows[-1]} …", width)
        return [("class:note", "\n".join(f"│ {line}" for line in rows))]

    def _hint(self) -> StyleAndTextTuples:
        width = self._width()
        return [("class:note", next((keys for keys in _KEYS if len(keys) <= width), ""))]
