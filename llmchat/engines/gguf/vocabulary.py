"""The vocabulary of a GGUF file, through llama.cpp's own tokenizer."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.gguf.llama import Llama


class LlamaVocabulary:
    """See tokenizer.vocabulary. folder: written by `hub.gguf_header` for the file; llama: the
    loaded model.
    """

    def __init__(self, llama: Llama, folder: Path):
        self._llama = llama
        added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        self.specials = {
            token["content"]: int(number) for number, token in added.items() if token["special"]
        }
        self.marks = tuple(
            token["content"]
            for token in added.values()
            if not token["special"] and token["content"][:1] in ("<", "[")
        )

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        return [token for token, _ in self._llama.tokenize(text, special=special)]

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """A part of a character counts as that character, as in the tokenizers library."""
        sizes = [len(piece) for _, piece in self._llama.tokenize(text, special=special)]
        # The byte at which each character starts. The first token includes a space that the
        # vocabulary puts before a text.
        starts = [0, *accumulate(len(character.encode()) for character in text)]
        extra = sum(sizes) - starts[-1]
        ends = [max(0, end - extra) for end in accumulate(sizes)]
        begins = [0, *ends[:-1]]
        spans = []
        for begin, end in zip(begins, ends, strict=True):
            first = bisect_right(starts, begin) - 1
            spans.append((first, bisect_right(starts, end - 1) if end > begin else first))
        return spans

    def id_of(self, token: str) -> int | None:
        ids = self.ids(token)
        return ids[0] if len(ids) == 1 else None

    def name_of(self, token: int) -> str | None:
        return self._llama.text_of([token]) or None

    def spelling(self, token: int) -> bytes:
        """In UTF-8; a token that is a part of a character becomes U+FFFD."""
        return self._llama.text_of([token]).encode()

    def spellings(self, count: int) -> list[bytes]:
        return [self.spelling(token) for token in range(count)]

    def around(self) -> list[int]:
        return [token for token, _ in self._llama.tokenize("", special=False, around=True)]

    def decoder(self) -> Callable[[int], str]:
        ids: list[int] = []
        shown = ""

        def step(token: int) -> str:
            nonlocal shown
            ids.append(token)
            text = self._llama.text_of(ids)
            if text.endswith("\ufffd"):
                return ""
            new, shown = text[len(shown) :], text
            return new

        return step
