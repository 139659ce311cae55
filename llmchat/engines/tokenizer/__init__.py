"""The tokenizer of a checkpoint: prompts to token ids, and token ids to text.

It needs the tokenizer's files only, no weights and no torch.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from llmchat.engines.bounded_cache import remembered_count
from llmchat.engines.checkpoint_files import read_json, special_names
from llmchat.engines.tokenizer import chatglm
from llmchat.engines.tokenizer.files import open_vocabulary
from llmchat.engines.tokenizer.rwkv_world import END, WorldVocabulary
from llmchat.engines.tokenizer.vocabulary import Vocabulary, any_of
from llmchat.errors import IntegrityError
from llmchat.parse_guard import reading
from llmchat.prompt import Prompt

# The names that LLaMA's tokenizer gives its tokens, for files that leave them empty.
LLAMA_NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


class Tokenizer:
    """The tokenizer of a checkpoint folder. `end_ids` are the stop tokens of the checkpoint.

    vocabulary: replaces the one of the folder.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary | None = None):
        with reading(f"the tokenizer in {folder.name}"):
            self._open(folder, vocabulary)

    def _open(self, folder: Path, vocabulary: Vocabulary | None) -> None:
        self._folder, self._config = folder, read_json(folder / "config.json")
        self._vocabulary = vocabulary or open_vocabulary(folder)
        self._specials = self._vocabulary.specials
        self._special_pattern = any_of(self._specials)
        self._mark_pattern = any_of(self._vocabulary.marks)
        self.id_of = self._vocabulary.id_of
        self.name_of = self._vocabulary.name_of
        self.spelling = self._vocabulary.spelling
        own = {key: name for key, name in special_names(folder).items() if name}
        assumed = {key: name for key, name in LLAMA_NAMES.items() if name in self._specials}
        self.names = assumed | own
        self.end_ids = self._read_end_ids()
        self._opening, self._closing = self._read_surroundings()
        # What closes an encoder's text stays behind an answer that was begun.
        is_encoder = bool(self._config.get("is_encoder_decoder"))
        self._opens_answers = bool(self._closing) and not is_encoder
        self.count = remembered_count(self._count)
        self._latest: tuple[Prompt | None, bool, list[int]] = (None, False, [])

    @property
    def special(self) -> frozenset[str]:
        """The special tokens that a text can spell."""
        return frozenset(self._specials)

    def encode(self, prompt: Prompt, *, apart: bool = False) -> list[int]:
        """Ids of the whole prompt, with exactly one BOS if the model uses one, and with the end
        mark that an encoder expects.

        A special token that somebody wrote into a message is text: then the pieces between the
        format's own special tokens are encoded separately, with special tokens off. apart: no
        token spans the start of an answer, as none does when a chat continues after the prompt.
        """
        if prompt.ids:
            return list(prompt.ids)
        latest, among, ids = self._latest
        if latest is not prompt or among != apart:
            # The window counts a prompt before the engine reads the same one.
            ids = self._encode(prompt, apart)
            self._latest = (prompt, apart, ids)
        return ids.copy()

    def _encode(self, prompt: Prompt, apart: bool) -> list[int]:
        ids: list[int] = []
        for start, end, special in self._pieces(prompt, apart):
            if prompt.begun and self._opens_answers and start == prompt.quoted[-1][0]:
                ids += self._closing
            ids += self._vocabulary.ids(prompt.text[start:end], special=special)
        opening = self._opening if prompt.bos else []
        ids = ids if ids[: len(opening)] == opening else opening + ids
        is_closed = bool(prompt.begun) and self._opens_answers
        ends = bool(self._closing) and ids[-len(self._closing) :] == self._closing
        return ids if is_closed or ends else ids + self._closing

    def learnt(self, prompt: Prompt, *, apart: bool = False) -> list[bool]:
        """For each id of `encode(prompt)`, whether the model wrote it. A token that begins before
        the answer does not count.
        """
        spans = self._spans(prompt, apart)
        marks = [any(first <= start < last for first, last in prompt.learn) for start, _ in spans]
        before = len(self.encode(prompt, apart=apart)) - len(self._closing) - len(marks)
        return [False] * max(0, before) + marks + [False] * len(self._closing)

    def melts(self, prompt: Prompt) -> bool:
        """Whether a token spans the start of an answer, as one of `Answer: ` + `Paris` can:
        training would then see other tokens than a chat.
        """
        starts = {start for start, _ in prompt.learn}
        return any(
            start < border < end for start, end in self._spans(prompt, False) for border in starts
        )

    def stop_ids(self, prompt: Prompt) -> frozenset[int]:
        """The tokens that end an answer to this prompt: those of the checkpoint and of the format,
        and stop strings that are a special token.
        """
        named = {self._specials[stop] for stop in prompt.stops if stop in self._specials}
        return frozenset({*self.end_ids, *prompt.stop_ids, *named})

    def spelt(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones by their names; invalid UTF-8 as U+FFFD."""
        return b"".join(map(self._vocabulary.spelling, ids)).decode("utf-8", "replace")

    def ids(self, text: str) -> list[int]:
        """Ids of a bare text: without BOS, and with special tokens read as plain text."""
        return self._vocabulary.ids(text, special=False)

    def spellings(self, count: int) -> list[bytes]:
        """The bytes of the tokens below `count`; none for an id without a token."""
        return self._vocabulary.spellings(count)

    def decoder(self, shown: Collection[str] = ()) -> Callable[[int], str]:
        """A function that takes ids of an answer one by one and returns the text each completes.

        shown: special tokens that are text too; all others are left out.
        """
        decode = self._vocabulary.decoder()
        names = {self._specials[name]: name for name in shown if name in self._specials}
        return lambda token: names[token] if token in names else decode(token)

    def _count(self, text: str) -> int:
        return len(self.ids(text))

    def _spans(self, prompt: Prompt, apart: bool) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for start, end, special in self._pieces(prompt, apart):
            spans += [
                (start + a, start + b)
                for a, b in self._vocabulary.spans(prompt.text[start:end], special=special)
            ]
        return spans

    def _pieces(self, prompt: Prompt, apart: bool = False) -> list[tuple[int, int, bool]]:
        """The pieces that are encoded separately: (start, end, whether special tokens count).

        The whole text is one piece if no message spells a token. Otherwise each special token of
        the format is a piece, the text between two is another, and a mark in a message is cut in
        two.
        """
        text = prompt.text
        quoted = {match.start() for match in _within(self._special_pattern, prompt)}
        cuts = [match.start() + 1 for match in _within(self._mark_pattern, prompt)]
        if prompt.begun and self._opens_answers:
            cuts.append(prompt.quoted[-1][0])
        if apart:
            cuts += [start for start, _ in prompt.learn if start]
        if not quoted and not cuts:
            return [(0, len(text), True)]
        own = [
            (match.start(), match.end())
            for match in self._special_pattern.finditer(text)
            if match.start() not in quoted
        ]
        pieces, position = [], 0
        for start, end in sorted([*own, *((cut, cut) for cut in cuts), (len(text), len(text))]):
            pieces += [(position, start, False), (start, end, True)]
            position = end
        return [piece for piece in pieces if piece[0] < piece[1]]

    def _read_surroundings(self) -> tuple[list[int], list[int]]:
        """The ids before and after a prompt. Only an encoder gets an end mark: any other prompt is
        continued. Behind that of ChatGLM-6B is what an answer begins with.
        """
        bos, eos = (
            self._specials.get(self.names.get(name, "")) for name in ("bos_token", "eos_token")
        )
        if marks := chatglm.surroundings(self._vocabulary, self._config):
            return marks
        around = self._vocabulary.around()
        opening = [bos] if bos is not None and bos in around else []
        closes = self._config.get("is_encoder_decoder") and eos is not None and around[-1:] == [eos]
        return opening, [eos] if closes and eos is not None else []

    def _read_end_ids(self) -> frozenset[int]:
        numbers: set[int] = {END} if isinstance(self._vocabulary, WorldVocabulary) else set()
        for name in ("generation_config.json", "config.json"):
            value = read_json(self._folder / name).get("eos_token_id")
            found = value if isinstance(value, list) else [] if value is None else [value]
            if not all(type(number) is int and number >= 0 for number in found):
                raise IntegrityError(f"{name} has an invalid eos_token_id")
            numbers.update(found)
        eos = self._specials.get(self.names.get("eos_token", ""))
        if eos is None:
            return frozenset(numbers)
        # The first LLaMA files had `eos_token_id` 1, which is <s> and opens a text.
        opening = self._specials.get("<s>", eos)
        return frozenset((numbers | {eos}) - ({opening} if opening != eos else set()))


def _within(pattern: re.Pattern[str], prompt: Prompt) -> list[re.Match[str]]:
    """The matches of a pattern in the parts that people wrote."""
    return [
        match for start, end in prompt.quoted for match in pattern.finditer(prompt.text, start, end)
    ]
