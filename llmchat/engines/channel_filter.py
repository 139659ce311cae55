"""Reads an answer in harmony's channels: thoughts, remarks, tool calls and the final answer.

An answer of gpt-oss is a sequence of messages, <|channel|>NAME<|message|>TEXT<|end|>, each but the
first after <|start|>assistant. A call names its recipient, in the role or after the channel:
https://github.com/openai/harmony/blob/main/docs/format.md.
"""

import re
from typing import Literal

from llmchat.engines.stream_filters import begun

_MESSAGE = "<|message|>"
# What ends the text of a message. The last two begin the next one, if the model forgot <|end|>.
_NEXT = ("<|start|>", "<|channel|>")
_ENDS = ("<|end|>", "<|call|>", "<|return|>", *_NEXT)
_END = re.compile("|".join(map(re.escape, _ENDS)))
_HEADER_STARTS = ("<|", "to=")
# Characters after which what looks like a header is text.
_LONGEST_HEADER = 200
_RECIPIENT = re.compile(r"to=(functions\.[\w.-]+)")
_CALL = "<|channel|>commentary to={} <|constrain|>json<|message|>"


class ChannelFilter:
    """Separates thoughts from the rest of an answer, which arrives in pieces.

    The marks around messages and the names of channels are removed. A call keeps one header, in the
    form that `tool_syntax` reads; where no tools are offered, its arguments are text.
    inside: the stream begins within a thought. tools: whether calls are expected.
    """

    def __init__(self, *, inside: bool = False, tools: bool = False):
        self._tools = tools
        self._state: Literal["header", "thought", "text"] = "thought" if inside else "header"
        self._held = ""
        # Whether a thought, and whether a text, has ended: the next one is a new paragraph.
        self._ended = {True: False, False: False}

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Pairs (whether it is a thought, text), in order, none of them empty."""
        self._held += text
        parts: list[tuple[bool, str]] = []
        while self._read_header(parts) if self._state == "header" else self._read_text(parts):
            pass
        return [part for part in parts if part[1]]

    def flush(self) -> list[tuple[bool, str]]:
        """The text that was held back, at the end of the answer, without an unfinished header."""
        text, self._held = self._held, ""
        if self._state == "header" and text.lstrip().startswith("<|"):
            return []
        return [(self._state == "thought", text)] if text else []

    def _read_header(self, parts: list[tuple[bool, str]]) -> bool:
        """Read the header that is held; false while it is incomplete."""
        header, mark, rest = self._held.partition(_MESSAGE)
        if mark:
            self._held = rest
            self._begin(header, parts)
            return True
        start = header.lstrip()
        may_be = any(start.startswith(one) or one.startswith(start) for one in _HEADER_STARTS)
        if may_be and len(start) < _LONGEST_HEADER:
            return False
        # The model answers without a header.
        self._state = "text"
        return True

    def _begin(self, header: str, parts: list[tuple[bool, str]]) -> None:
        """Begin the text of a message with this header."""
        recipient = _RECIPIENT.search(header)
        thought = not recipient and "<|channel|>analysis" in header
        self._state = "thought" if thought else "text"
        if recipient and self._tools:
            parts.append((False, _CALL.format(recipient[1])))
        elif self._ended[thought]:
            parts.append((thought, "\n\n"))

    def _read_text(self, parts: list[tuple[bool, str]]) -> bool:
        """Pass on the text that is held; false if its end is not there yet."""
        thought, end = self._state == "thought", _END.search(self._held)
        if end is None:
            shown = len(self._held) - begun(self._held, _ENDS)
            parts.append((thought, self._held[:shown]))
            self._held = self._held[shown:]
            return False
        parts.append((thought, self._held[: end.start()]))
        self._held = self._held[end.start() if end[0] in _NEXT else end.end() :]
        self._state, self._ended[thought] = "header", True
        return True
