"""Parse bracketed pastes of any size in linear time; an end mark inside a paste does not end it.

prompt_toolkit searches the whole paste again for each kilobyte, which takes 15 s for 5 MB.
"""

from prompt_toolkit.input import Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

_BEGIN, _END = "\x1b[200~", "\x1b[201~"


class PasteParser(Vt100Parser):
    """prompt_toolkit's parser with a paste collected in pieces."""

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
        """Emit the paste as one key.

        Some terminals pass on end marks that were pasted; the last one received ends the paste.
        """
        text, _, after = "".join(self._pieces).rpartition(_END)
        self._in_bracketed_paste = False
        self._forget()
        pasted = text.replace(_END, "").replace(_BEGIN, "")
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, pasted))
        self.feed(after)

    def _forget(self) -> None:
        self._pieces, self._last = [], ""


def use(source: Input) -> None:
    """Install the parser in an input that parses keys."""
    parser = getattr(source, "vt100_parser", None)
    if isinstance(parser, Vt100Parser):
        source.vt100_parser = PasteParser(parser.feed_key_callback)  # type: ignore[attr-defined]
