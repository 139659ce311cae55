"""Random answers that a grammar allows, made byte by byte with llguidance and without a model."""

import random
from collections.abc import Mapping

from llguidance import LLMatcher, LLTokenizer

from llmchat.tool_syntax import resolve

END = 256
# What ends strings, lists and calls; preferred, so that walks come to an end.
_CLOSING = b'"}])<>\n|'


class _Bytes:
    """A tokenizer of single bytes and of some special tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = END

    def __init__(self, special: Mapping[str, int]):
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.tokens += [b"<end>", *(name.encode() for name in special)]
        self.special_token_ids = [END, *special.values()]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


class Grammars:
    """Grammars over bytes. special: marks that are one token each."""

    def __init__(self, special: tuple[str, ...] = ()):
        self.special = {mark: END + 1 + index for index, mark in enumerate(special)}
        self._tokenizer = LLTokenizer(_Bytes(self.special), slices=[])

    def matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, resolve(grammar, self.special), log_level=0)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
        return matcher

    def ids(self, text: str) -> list[int]:
        """The tokens of a text: its marks, and the bytes between them."""
        ids: list[int] = []
        while text:
            mark = next((mark for mark in self.special if text.startswith(mark)), "")
            ids += [self.special[mark]] if mark else text[0].encode()
            text = text[len(mark) or 1 :]
        return ids

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether the text is a whole answer."""
        matcher, ids = self.matcher(grammar), self.ids(text)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    def refused_at(self, grammar: str, text: str) -> int:
        """The number of tokens that are allowed."""
        return self.matcher(grammar).try_consume_tokens(self.ids(text))

    def walk(self, grammar: str, rng: random.Random, start: str = "", steps: int = 3000) -> str:
        """A random answer that begins with `start`; empty if it finds no end."""
        matcher, ids = self.matcher(grammar), self.ids(start)
        assert matcher.consume_tokens(ids), start
        for _ in range(steps):
            allowed = self._allowed(matcher)
            assert allowed, "the grammar leads nowhere"
            token = self._choose(allowed, rng)
            if token == END:
                return self._text(ids)
            assert matcher.consume_token(token)
            ids.append(token)
        return ""

    def _allowed(self, matcher: LLMatcher) -> list[int]:
        if matcher.is_stopped():
            return [END]
        mask = matcher.compute_bitmask()
        count = END + 1 + len(self.special)
        return [token for token in range(count) if mask[token // 8] >> (token % 8) & 1]

    def _choose(self, allowed: list[int], rng: random.Random) -> int:
        closing = [token for token in allowed if token >= END or token in _CLOSING]
        return rng.choice(closing if closing and rng.random() < 0.6 else allowed)

    def _text(self, ids: list[int]) -> str:
        names = {number: mark for mark, number in self.special.items()}
        pieces = [names[one].encode() if one in names else bytes([one]) for one in ids]
        return b"".join(pieces).decode()
