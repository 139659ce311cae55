"""A tokenizer as llguidance needs it: the bytes of every token, and how a text is tokenized."""

import functools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from llmchat import thought_marks
from llmchat.engines.guide.mask import Mask, mask_of
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import Mismatch

# Characters that are tokens of their own, so that a text behind one is tokenized as it is in the
# middle of an answer: without the space that some tokenizers put before a text.
_BORDERS = ("", "\x01", "\n")
# White space of JSON; that of Python has more.
_SPACE = b" \t\n\r"
_PROBE = "The answer is 42, or so"


class TokenTable:
    """The tokens of a loaded model below `count`, which is the size of its output. special: the ids
    of special tokens by name.

    Special tokens are no text: a grammar allows one only by its name. An id that the tokenizer does
    not have is never allowed. Raises Mismatch for a tokenizer whose tokens are not pieces of text.
    """

    def __init__(self, tokens: Tokenizer, count: int):
        from llguidance import LLTokenizer

        self.count = count
        self._tokens = tokens
        self.spellings = tokens.spellings(count)
        self._check()
        numbers = {name: tokens.id_of(name) for name in tokens.special}
        self.special = {
            name: number
            for name, number in numbers.items()
            if number is not None and number < count
        }
        self._special = frozenset(self.special.values())
        self._overrunning = functools.cache(self._overrun)
        wrapper: Any = _Wrapper(self, sorted(self._special))
        self.llguidance: Any = LLTokenizer(wrapper)

    def empty_mask(self) -> Mask:
        """A mask as llguidance fills it: it has a token of its own, the last one."""
        return Mask(self.count + 1)

    @cached_property
    def everything(self) -> Mask:
        return mask_of(self.count + 1, range(self.count))

    @cached_property
    def white_space(self) -> Mask:
        """The tokens that are white space and nothing else."""
        spaces = (
            number
            for number, text in enumerate(self.spellings)
            if text and not text.strip(_SPACE) and number not in self._special
        )
        return mask_of(self.count + 1, spaces)

    def overrunning(self, missing: Sequence[bytes]) -> list[int]:
        """The tokens that complete a mark and go on with something other than white space.

        missing: the mark, which a token may contain, and rests of it that a token may begin with.
        """
        mark, *rests = missing
        return [
            *self._overrunning(mark, True),
            *(n for one in rests for n in self._overrunning(one, False)),
        ]

    def _overrun(self, mark: bytes, inside: bool) -> list[int]:
        return [
            number
            for number, text in enumerate(self.spellings)
            if (mark in text if inside else text.startswith(mark))
            and text.partition(mark)[2].strip(_SPACE)
        ]

    def ids_of_mark(self, mark: str) -> list[int]:
        """The tokens that spell a mark: one if there is such a token, or one for each of its parts
        that has one.
        """
        if (number := self._number(mark)) is not None:
            return [number]
        ids: list[int] = []
        for part in thought_marks.parts_of(mark):
            number = self._number(part)
            ids += [number] if number is not None else self.ids(part)
        return ids

    def _number(self, name: str) -> int | None:
        number = self._tokens.id_of(name)
        return number if number is not None and number < self.count else None

    def ids(self, text: str) -> list[int]:
        """The tokens of a text in the middle of an answer, as the tokenizer would choose them."""
        data = text.encode()
        for border in _BORDERS:
            ids = self._tokens.ids(border + text)
            if (found := self._tail(ids, data)) is not None:
                return found
        return self._greedy(data)

    def _tail(self, ids: Sequence[int], data: bytes) -> list[int] | None:
        """The last ids, if their spellings are exactly these bytes."""
        size, start = 0, len(ids)
        while size < len(data) and start:
            start -= 1
            size += len(self.spelling(ids[start]))
        found = list(ids[start:])
        return found if b"".join(map(self.spelling, found)) == data else None

    def _greedy(self, data: bytes) -> list[int]:
        """The longest token at each place, up to a byte that no token spells."""
        ids: list[int] = []
        position = 0
        while position < len(data):
            starts = (data[position : position + size] for size in range(self._longest, 0, -1))
            text = next((text for text in starts if text in self._numbers), None)
            if text is None:
                break
            ids.append(self._numbers[text])
            position += len(text)
        return ids

    def spelling(self, token: int) -> bytes:
        return self.spellings[token] if token < self.count else b""

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {
            text: number
            for number, text in enumerate(self.spellings)
            if text and number not in self._special
        }

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._numbers), default=0)

    def _check(self) -> None:
        ids = self._tokens.ids(_PROBE)
        spelt = b"".join(map(self.spelling, ids)).decode("utf-8", "replace")
        shown = "".join(map(self._tokens.decoder(), ids))
        if not spelt.lstrip() == shown.lstrip() == _PROBE:
            raise Mismatch(
                "this model's tokenizer changes the text it reads, so no structure can be enforced",
                "ask for the structure in words, or use another model",
            )

    def single_spellings(self) -> list[bytes]:
        """The spellings without those that another token has as well: of two, the tokenizer uses
        one (`a` and not the byte `<0x61>`).
        """
        tokens: dict[bytes, list[int]] = {}
        for number, text in enumerate(self.spellings):
            if text:
                tokens.setdefault(text, []).append(number)
        single = list(self.spellings)
        for text, twins in tokens.items():
            if len(twins) > 1:
                used = self.ids(text.decode("utf-8", "replace"))
                kept = used[0] if len(used) == 1 and used[0] in twins else twins[-1]
                for number in twins:
                    single[number] = text if number == kept else b""
        return single


class _Wrapper:
    """A table in the form that LLTokenizer takes. The last token is one that no model has: it
    stands for the end, which belongs to the answer.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, table: TokenTable, special: list[int]):
        self.tokens = [*table.single_spellings(), b"<|end of the structure|>"]
        self.eos_token_id = table.count
        self.special_token_ids = [*special, table.count]
        self._ids = table.ids

    def __call__(self, text: str) -> list[int]:
        return self._ids(text)
