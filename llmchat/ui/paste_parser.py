"""Bracketed pastes of any size in linear time, and whole: no end mark inside the pasted text ends them.

prompt_toolkit searches all that has come each time a kilobyte comes: 15 seconds for 5 MB.
"""

from prompt_toolkit.input import Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

_BEGIN, _END = "\x1b[200~", "\x1b[201~"


class PasteParser(Vt100Parser):
    """The library's parser with another way to collect a paste."""

    _pieces: list[str]
    _last: str

    def reset(self, request: bool = False) -> None:
        super().reset(request)
        self._forget()

    def feed(self, data: str) -> None:
        if not self._in_bracketed_paste:
            return super().feed(data)
        self._pieces.append(data)
        self._last = (self._last + data)[-len(data) - len(_END) + 1 :]
        return self._end() if _END in self._last else None

    def _end(self) -> None:
        """Give on the paste. Where a terminal passes on an end mark that was pasted, the last one in reach counts."""
        text, _, behind = "".join(self._pieces).rpartition(_END)
        self._in_bracketed_paste = False
        self._forget()
        self.feed_key_callback(
            KeyPress(Keys.BracketedPaste, text.replace(_END, "").replace(_BEGIN, ""))
        )
        self.feed(behind)

    def _forget(self) -> None:
        self._pieces, self._last = [], ""


def use(source: Input) -> None:
    """Let an input read its pastes so, where it parses keys at all."""
    parser = getattr(source, "vt100_parser", None)
    if isinstance(parser, Vt100Parser):
        source.vt100_parser = PasteParser(parser.feed_key_callback)  # type: ignore[attr-defined]
