"""The vocabulary of a tokenizer.json: the tokenizers library."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.engines.tokenizer.byte_level import bytes_of
from llmchat.engines.tokenizer.incremental_decoder import IncrementalDecoder
from llmchat.engines.tokenizer.incremental_tokenizer import IncrementalTokenizer
from llmchat.engines.tokenizer.vocabulary import any_of
from llmchat.parse_guard import reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>$")


class FastVocabulary:
    """See vocabulary.Vocabulary."""

    def __init__(self, tokenizer: "Tokenizer"):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        added = tokenizer.get_added_tokens_decoder()
        self.specials = {token.content: number for number, token in added.items() if token.special}
        self.marks = tuple(
            token.content
            for token in added.values()
            if not token.special and token.content[:1] in ("<", "[")
        )
        self.id_of, self.name_of = tokenizer.token_to_id, tokenizer.id_to_token

        self.is_byte_level = "ByteLevel" in repr(tokenizer.decoder)
        # Tokens that absorb white space, or are matched after normalisation, do not split a text.
        parting = {
            token.content: number
            for number, token in added.items()
            if token.special
            and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        }
        self._growing = IncrementalTokenizer(
            lambda text: self._encoding(text, True).ids,
            parting,
            any_of(parting),
            max((len(token.content) for token in added.values()), default=0),
        )

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        if special:
            return self._growing.ids(text)
        numbers: list[int] = self._encoding(text, False).ids
        return numbers

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = self._encoding(text, special).offsets
        return ranges

    def spelling(self, token: int) -> bytes:
        return self._spelling(self._tokenizer.id_to_token(token) or "")

    def spellings(self, count: int) -> list[bytes]:
        spellings = [b""] * count
        for name, number in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if number < count:
                spellings[number] = self._spelling(name)
        return spellings

    def _spelling(self, name: str) -> bytes:
        if name.startswith("<0x") and (match := _BYTE.match(name)):
            return bytes([int(match[1], 16)])
        if self.is_byte_level and (spelling := bytes_of(name)) is not None:
            return spelling
        return name.replace("▁", " ").encode()

    def around(self) -> list[int]:
        numbers: list[int] = self._tokenizer.encode("").ids
        return numbers

    @property
    def backend(self) -> "Tokenizer":
        return self._tokenizer

    def save(self, path: Path) -> None:
        self._tokenizer.save(str(path))

    def decoder(self) -> Callable[[int], str]:
        def is_byte(token: int) -> bool:
            return bool(_BYTE.match(self.name_of(token) or ""))

        return IncrementalDecoder(
            self._decode, self.spelling, frozenset(self.specials.values()), is_byte
        )

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _encoding(self, text: str, special: bool) -> Any:
        # The setting belongs to the tokenizer, not to the call: no other thread may see it on.
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            try:
                with reading("the tokenizer's rule for this text"):
                    return self._tokenizer.encode(text, add_special_tokens=False)
            finally:
                self._tokenizer.encode_special_tokens = False
