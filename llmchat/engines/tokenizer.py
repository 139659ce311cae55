"""Text ↔ token ids for the engines that run a checkpoint themselves. Needs the tokenizer's files alone, no weights and no torch."""

import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmchat.engines import sentencepiece
from llmchat.engines.bounded_cache import remembered_count
from llmchat.engines.byte_level import byte_of
from llmchat.engines.checkpoint_files import chat_template as chat_template
from llmchat.engines.checkpoint_files import read_json as read_json
from llmchat.engines.checkpoint_files import special_names as special_names
from llmchat.engines.checkpoint_files import special_tokens as special_tokens
from llmchat.engines.incremental_decoder import Decoding
from llmchat.engines.incremental_tokenizer import GrowingTexts
from llmchat.engines.rwkv_world import END, WorldVocabulary
from llmchat.errors import IntegrityError, Mismatch
from llmchat.memory_estimate import own_context
from llmchat.parse_guard import reading, silenced
from llmchat.prompt import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What a checkpoint takes that does not say. Where positions are relative (T5) or the past is a state (RWKV), the number in the config bounds
# nothing: T5 files say 512 whatever they were trained with, and every converted RWKV file says 1024.
_CONTEXT = 2048
_AT_LEAST = {"t5": 2048, "mt5": 2048, "umt5": 2048, "rwkv": 4096}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>$")
# The names that LLaMA's tokenizer gives its tokens, for files that leave them empty.
_LLAMA_NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


class Vocabulary(Protocol):
    """What turns text into ids.

    specials: the special tokens that a text can spell, and their ids; marks: tokens found in any text though they are not special (<think>)
    """

    specials: dict[str, int]
    marks: tuple[str, ...]

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a bare text; without `special` a special token that is spelt out is text."""
        ...

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """Where each of the ids of a text stands in it, in characters."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""
        ...

    def name_of(self, token: int) -> str | None:
        """How the vocabulary writes a token; None where it has no such id."""
        ...

    def spelling(self, token: int) -> bytes:
        """The bytes of a text that a token stands for; special tokens are spelt as they are named."""
        ...

    def around(self) -> list[int]:
        """What the tokenizer itself puts around a text."""
        ...

    def decoder(self) -> Callable[[int], str]: ...


class Tokens:
    """The tokenizer of a checkpoint folder. `end_ids` are the token ids after which the model has nothing more to say.

    vocabulary: one that the folder does not hold.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary | None = None):
        with reading(f"the tokenizer in {folder.name}"):
            self._open(folder, vocabulary)

    def _open(self, folder: Path, vocabulary: Vocabulary | None) -> None:
        self._folder = folder
        self._vocabulary = vocabulary or _open_vocabulary(folder)
        self._specials = self._vocabulary.specials
        self._special_pattern, self._mark_pattern = (
            _any_of(self._specials),
            _any_of(self._vocabulary.marks),
        )
        self.id_of, self.name_of, self.spelling = (
            self._vocabulary.id_of,
            self._vocabulary.name_of,
            self._vocabulary.spelling,
        )
        named = {key: value for key, value in special_names(folder).items() if value}
        self.names = {
            key: value for key, value in _LLAMA_NAMES.items() if value in self._specials
        } | named
        self.end_ids = self._read_end_ids()
        self._opening, self._closing = self._read_surroundings()
        self.count = remembered_count(self._count)
        self._latest: tuple[Prompt | None, bool, list[int]] = (None, False, [])

    @property
    def special(self) -> frozenset[str]:
        """The special tokens that a text can spell."""
        return frozenset(self._specials)

    def encode(self, prompt: Prompt, *, apart: bool = False) -> list[int]:
        """The whole text in one piece, with exactly one BOS where the model wants one, and the end mark that an encoder wants.

        A special token that somebody wrote into a message is text: then the pieces between the format's own special tokens are encoded
        one by one, with special tokens off. apart: no token reaches over the start of an answer, as none does when a chat goes on with it.
        """
        if prompt.ids:
            return list(prompt.ids)
        latest, among, ids = self._latest
        if latest is not prompt or among != apart:
            # A window is counted before the same prompt is read.
            ids = self._encode(prompt, apart)
            self._latest = (prompt, apart, ids)
        return ids.copy()

    def _encode(self, prompt: Prompt, apart: bool) -> list[int]:
        ids: list[int] = []
        for start, end, special in self._pieces(prompt, apart):
            ids += self._vocabulary.ids(prompt.text[start:end], special=special)
        opening = self._opening if prompt.bos else []
        ids = ids if ids[: len(opening)] == opening else opening + ids
        return ids if self._closing and ids[-1:] == self._closing else ids + self._closing

    def learnt(self, prompt: Prompt, *, apart: bool = False) -> list[bool]:
        """For each id of `encode(prompt)` whether the model wrote it. A token that begins before the answer is not the model's."""
        spans = self._spans(prompt, apart)
        marks = [any(first <= start < last for first, last in prompt.learn) for start, _ in spans]
        before = len(self.encode(prompt, apart=apart)) - len(self._closing) - len(marks)
        return [False] * max(0, before) + marks + [False] * len(self._closing)

    def melts(self, prompt: Prompt) -> bool:
        """Whether a token reaches over the start of an answer, so that a chat could not go on with it: `Answer: ` and `Paris`."""
        starts = {start for start, _ in prompt.learn}
        return any(
            start < border < end for start, end in self._spans(prompt, False) for border in starts
        )

    def stop_ids(self, prompt: Prompt) -> frozenset[int]:
        """Every token that ends an answer to this prompt: the checkpoint's, the format's, and stop strings that are one special token."""
        named = {self._specials[stop] for stop in prompt.stops if stop in self._specials}
        return frozenset({*self.end_ids, *prompt.stop_ids, *named})

    def spelt(self, ids: Sequence[int]) -> str:
        """What tokens spell, special ones by their names; bytes that are no text as U+FFFD."""
        return b"".join(map(self._vocabulary.spelling, ids)).decode("utf-8", "replace")

    def decoder(self) -> Callable[[int], str]:
        """A function that takes the ids of an answer one by one and returns the text that has become whole with each."""
        return self._vocabulary.decoder()

    def _count(self, text: str) -> int:
        return len(self._vocabulary.ids(text, special=False))

    def _spans(self, prompt: Prompt, apart: bool) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for start, end, special in self._pieces(prompt, apart):
            spans += [
                (start + a, start + b)
                for a, b in self._vocabulary.spans(prompt.text[start:end], special=special)
            ]
        return spans

    def _pieces(self, prompt: Prompt, apart: bool = False) -> list[tuple[int, int, bool]]:
        """(start, end, whether special tokens count) of what is encoded at once: all of the text, where no message spells a token.

        Otherwise each special token of the format itself is a piece, what stands between is text, and no token reaches over the cut that is
        made inside a mark.
        """
        text, quoted = (
            prompt.text,
            {match.start() for match in _within(self._special_pattern, prompt)},
        )
        cuts = [match.start() + 1 for match in _within(self._mark_pattern, prompt)] + [
            start for start, _ in prompt.learn if apart and start
        ]
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
        """What belongs before and after a prompt. An end mark belongs to what an encoder reads, and to no prompt that is to be continued."""
        bos, eos = (
            self._specials.get(self.names.get(name, "")) for name in ("bos_token", "eos_token")
        )
        around = self._vocabulary.around()
        opening = [bos] if bos is not None and bos in around else []
        closes = (
            read_json(self._folder / "config.json").get("is_encoder_decoder")
            and eos is not None
            and around[-1:] == [eos]
        )
        return opening, [eos] if closes and eos is not None else []

    def _read_end_ids(self) -> frozenset[int]:
        numbers: set[int] = {END} if isinstance(self._vocabulary, WorldVocabulary) else set()
        for name in ("generation_config.json", "config.json"):
            value = read_json(self._folder / name).get("eos_token_id")
            found = value if isinstance(value, list) else [] if value is None else [value]
            if not all(type(number) is int and number >= 0 for number in found):
                raise IntegrityError(f"{name} has an eos_token_id that is no token id")
            numbers.update(found)
        eos = self._specials.get(self.names.get("eos_token", ""))
        # The first LLaMA files had `eos_token_id` 1, which is the token that opens a text and ends none.
        wrong = (
            {self._specials["<s>"]}
            if eos is not None and self._specials.get("<s>", eos) != eos
            else set()
        )
        return frozenset((numbers if eos is None else numbers | {eos}) - wrong)


class FastVocabulary:
    """A tokenizer of the tokenizers library."""

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

        self._byte_level = "ByteLevel" in repr(tokenizer.decoder)
        # Tokens that take white space with them, or are looked for after other changes, do not part a text by themselves.
        parting = {
            token.content: number
            for number, token in added.items()
            if token.special
            and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        }
        self._growing = GrowingTexts(
            lambda text: self._encoding(text, True).ids,
            parting,
            _any_of(parting),
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
        name = self._tokenizer.id_to_token(token) or ""
        if match := _BYTE.match(name):
            return bytes([int(match[1], 16)])
        if self._byte_level and all(character in byte_of() for character in name):
            return bytes(byte_of()[character] for character in name)
        return name.replace("▁", " ").encode()

    def around(self) -> list[int]:
        numbers: list[int] = self._tokenizer.encode("").ids
        return numbers

    def save(self, path: Path) -> None:
        self._tokenizer.save(str(path))

    def decoder(self) -> Callable[[int], str]:
        def is_byte(token: int) -> bool:
            return bool(_BYTE.match(self.name_of(token) or ""))

        return Decoding(self._decode, self.spelling, frozenset(self.specials.values()), is_byte)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _encoding(self, text: str, special: bool) -> Any:
        # The switch belongs to the tokenizer, not to the call: another thread must not find it turned.
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            try:
                with reading("the tokenizer's rule for this text"):
                    return self._tokenizer.encode(text, add_special_tokens=False)
            finally:
                self._tokenizer.encode_special_tokens = False


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the longest of these words; for nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")


def _within(pattern: re.Pattern[str], prompt: Prompt) -> list[re.Match[str]]:
    """Where a pattern stands in what people wrote."""
    return [
        match for start, end in prompt.quoted for match in pattern.finditer(prompt.text, start, end)
    ]


def context_of(folder: Path) -> int:
    """The most tokens a model takes: its config's number; more where that number bounds nothing; 2048 where it does not say.

    For an encoder-decoder it bounds what the encoder reads, and the answer on its own.
    """
    config = read_json(folder / "config.json")
    with reading(folder / "config.json"):
        if own_context(config) < 0:
            raise ValueError("it has a negative number of positions")
    return max(own_context(config) or _CONTEXT, _AT_LEAST.get(str(config.get("model_type")), 0))


def save_tokenizer(folder: Path, target: Path) -> None:
    """Write a checkpoint's tokenizer as we read it into `target`, for programs that would make another one of the same files.

    tokenizer.json, with a class that takes it as it is. Raises Mismatch for a vocabulary that tokenizer.json cannot hold.
    """
    vocabulary = _open_vocabulary(folder)
    if not isinstance(vocabulary, FastVocabulary):
        raise Mismatch(f"the tokenizer of {folder} is none of the tokenizers library")
    target.mkdir(parents=True, exist_ok=True)
    vocabulary.save(target / "tokenizer.json")
    names = {
        key: name
        for key, name in Tokens(folder).names.items()
        if key in (*_LLAMA_NAMES, "pad_token")
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **names,
    }
    (target / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )


def _open_vocabulary(folder: Path) -> Vocabulary:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if path.exists():
        with reading(path), silenced():
            tokenizer = Tokenizer.from_file(str(path))
            # Some faults show only when it is used.
            tokenizer.encode("a b", add_special_tokens=True)
            return FastVocabulary(tokenizer)
    world = sorted(folder.glob("rwkv_vocab_*.txt"))
    if world:
        return WorldVocabulary(world[-1])
    pieces = next((folder / name for name in sentencepiece.FILES if (folder / name).exists()), None)
    return FastVocabulary(_from_pieces(pieces) if pieces else _convert_tokenizer(folder))


def _from_pieces(path: Path) -> "Tokenizer":
    """The tokenizer of a sentencepiece file, with what the files beside it add: more tokens, and what goes around a text."""
    from tokenizers import processors

    settings, config = (
        read_json(path.parent / "tokenizer_config.json"),
        read_json(path.parent / "config.json"),
    )
    added: dict[str, int] = read_json(path.parent / "added_tokens.json")
    for number, token in settings.get("added_tokens_decoder", {}).items():
        added[token["content"]] = int(number)
    model = sentencepiece.read_model(path)
    size = len(model.pieces)
    own = {text: number for text, number in added.items() if number >= size}
    if config.get("model_type") in ("t5", "mt5", "umt5"):
        # T5's sentinels follow its pieces, the last one first, and no file names them.
        extra = int(settings.get("extra_ids", 100))
        own |= {f"<extra_id_{extra - 1 - index}>": size + index for index in range(extra)}
    special = (
        frozenset(special_names(path.parent).values())
        | _listed_specials(path.parent)
        | {name for name in own if "<extra_id_" in name}
    )
    tokenizer = sentencepiece.make_tokenizer(model, own, special)
    reads_apart = bool(config.get("is_encoder_decoder"))
    mark = "</s>" if reads_apart else special_names(path.parent).get("bos_token") or "<s>"
    number = tokenizer.token_to_id(mark)
    if number is not None and (reads_apart or settings.get("add_bos_token", True)):
        template = f"$A {mark}" if reads_apart else f"{mark} $A"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(mark, number)]
        )
    return tokenizer


def _listed_specials(folder: Path) -> frozenset[str]:
    """Special tokens that have no name of their own."""
    settings = read_json(folder / "special_tokens_map.json") | read_json(
        folder / "tokenizer_config.json"
    )
    listed = settings.get("additional_special_tokens") or []
    marked = [
        token for token in settings.get("added_tokens_decoder", {}).values() if token.get("special")
    ]
    return frozenset(
        token["content"] if isinstance(token, dict) else token for token in [*listed, *marked]
    )


def _convert_tokenizer(folder: Path) -> "Tokenizer":
    """Older checkpoints bring vocab.json and merges.txt; transformers knows how to turn them into a fast tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise IntegrityError(
            f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0]}"
        ) from error
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
