"""How one family of models writes tool calls, as data."""

from typing import Literal

from msgspec import Struct

# How the arguments of a call are written: as a JSON object, as Python's keyword arguments, as one
# XML element each, or as Gemma does, with bare keys and strings between marks of their own.
Notation = Literal["json", "python", "xml", "gemma"]


class Dialect(Struct, frozen=True, kw_only=True):
    """The text of calls: open, then one or several calls, then close.

    A call is before + its name + between + its arguments + after. With `key`, calls are JSON
    objects {"name": …, key: arguments} instead, in a list if `array`.

    name_key: the key of the name in such an object.
    detect: a regular expression that finds the family in a chat template. source: where the syntax
    was found. separator: between the calls, or between the blocks where a block holds one call.
    several: whether a block between open and close holds several calls. at_start: calls are only
    found where the answer starts. aliases: other texts that begin a call as `before` does.
    numbered: whether a colon and the number of the call follow its name.
    between_pattern: a regular expression for what models write in place of `between`.
    parameter: what precedes the key, follows it, and follows the value of an XML argument.
    quote: the mark around strings, in Gemma's notation. marks: texts that tokenizers of the
    family hold as one token. drops: marks that are not shown. stops: texts that end the answer
    after a call. plain: whether the family's own form is JSON without any mark. single: whether an
    answer makes one call at most. channels: an answer is messages in channels, as in harmony.
    thought_end: what ends a thought before a call or an answer, if other marks do without tools.
    """

    name: str
    detect: str
    source: str
    open: str = ""
    close: str = ""
    separator: str = ""
    several: bool = False
    before: str = ""
    between: str = ""
    after: str = ""
    key: str = ""
    name_key: str = "name"
    array: bool = False
    notation: Notation = "json"
    at_start: bool = False
    aliases: tuple[str, ...] = ()
    between_pattern: str = ""
    numbered: bool = False
    parameter: tuple[str, str, str] = ("", "", "")
    quote: str = ""
    marks: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    plain: bool = False
    single: bool = False
    channels: bool = False
    thought_end: str = ""
