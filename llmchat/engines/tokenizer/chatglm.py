"""The tokenizers of ChatGLM, whose files name no special tokens: those are in the published code.

ChatGLM-6B (`ice_text.model`) writes line ends, tabs and runs of spaces as pieces of their own, and
puts [gMASK] and <sop> behind a prompt. Ids of its older files begin behind those of 20,000 image
tokens. The later models have [gMASK] and <sop> in front. Sources: tokenization_chatglm.py of
THUDM/chatglm-6b, chatglm2-6b and chatglm3-6b.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.tokenizer import sentencepiece
from llmchat.engines.tokenizer.incremental_decoder import IncrementalDecoder
from llmchat.engines.tokenizer.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    WRITTEN,
    Model,
    Piece,
)
from llmchat.engines.tokenizer.vocabulary import Vocabulary, any_of
from llmchat.errors import IntegrityError
from llmchat.parse_guard import reading

FILE = "ice_text.model"
MASK, START = "[gMASK]", "<sop>"
# Special tokens of the later models, behind their pieces. Their code calls two of them `sop` and
# `eop`, words that a text has.
LATER_SPECIALS = (
    "[MASK]", MASK, "[sMASK]", START, "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>",
)  # fmt: skip
_SPECIALS = ("[MASK]", MASK, "[sMASK]", "<unused_0>", START, "<eop>", "<ENC>", "<dBLOCK>")
_IMAGE_TOKENS = 20_000
_LONGEST_BLANK = 80
_BLANKS = {f"<|blank_{count}|>": " " * count for count in range(_LONGEST_BLANK, 1, -1)}
# The pieces that stand for white space, the longest run of spaces first.
_SPACES = {"<n>": "\n", "<|tab|>": "\t"} | _BLANKS
# Where a text is split: at white space that is written as a piece, and within what looks like the
# name of a byte.
_SPLITS = r"<n>|<\|tab\|>|<\|blank_\d+\|>|<(?=0x[0-9A-F]{2}>)"
_NEVER = "\U0010fffe"
_HEX = re.compile(r"<0x([0-9A-F]{2})>$")


def is_later(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of ChatGLM2, ChatGLM3 or GLM-4 with code of its own."""
    return config.get("model_type") == "chatglm" and "padded_vocab_size" in config


def surroundings(
    vocabulary: Vocabulary, config: Mapping[str, Any]
) -> tuple[list[int], list[int]] | None:
    """The ids before and after a prompt; None for another model than ChatGLM."""
    if config.get("model_type") != "chatglm":
        return None
    marks = [
        number for name in (MASK, START) if (number := vocabulary.specials.get(name)) is not None
    ]
    return (marks, []) if is_later(config) else ([], marks)


class IceVocabulary:
    """The vocabulary of ChatGLM-6B, see vocabulary.Vocabulary. offset: the image tokens."""

    marks: tuple[str, ...] = ()

    def __init__(self, model: Model, offset: int):
        self._tokenizer = _tokenizer(model)
        self._offset = offset
        self._names = [piece.text for piece in model.pieces]
        self._numbers = {name: offset + number for number, name in enumerate(self._names)}
        controls = (piece.text for piece in model.pieces if piece.kind == CONTROL)
        self.specials = {name: self._numbers[name] for name in controls}
        self._special = any_of(self.specials)
        self._skipped = frozenset(self.specials.values())

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        return [number for number, _ in self._tokens(text, special)]

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        return [span for _, span in self._tokens(text, special)]

    def id_of(self, token: str) -> int | None:
        return self._numbers.get(token)

    def name_of(self, token: int) -> str | None:
        number = token - self._offset
        return self._names[number] if 0 <= number < len(self._names) else None

    def spelling(self, token: int) -> bytes:
        name = self.name_of(token) or ""
        if name in _SPACES:
            return _SPACES[name].encode()
        byte = _HEX.match(name)
        return bytes([int(byte[1], 16)]) if byte else name.replace(SPACE, " ").encode()

    def spellings(self, count: int) -> list[bytes]:
        return [self.spelling(token) for token in range(count)]

    def around(self) -> list[int]:
        return []

    def decoder(self) -> Callable[[int], str]:
        return IncrementalDecoder(self._joined, self.spelling, self._skipped, lambda token: False)

    def _tokens(self, text: str, special: bool) -> Iterator[tuple[int, tuple[int, int]]]:
        """The id of each token, and where it is in the text."""
        start = 0
        for found in self._special.finditer(text) if special else ():
            yield from self._plain(text[start : found.start()], start)
            yield self.specials[found[0]], found.span()
            start = found.end()
        yield from self._plain(text[start:], start)

    def _plain(self, text: str, start: int) -> Iterator[tuple[int, tuple[int, int]]]:
        with reading("the tokenizer's rule for this text"):
            encoding = self._tokenizer.encode(text)
        for number, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
            yield self._offset + number, (start + first, start + last)

    def _joined(self, ids: list[int]) -> str:
        """The text of tokens. The space in front of a text is none of it."""
        text = b"".join(map(self.spelling, ids)).decode("utf-8", "replace")
        return text.removeprefix(" ") if (self.name_of(ids[0]) or "").startswith(SPACE) else text


def read_ice_text(path: Path) -> IceVocabulary:
    """The vocabulary of an ice_text.model. Raises IntegrityError for another file."""
    model = _completed(sentencepiece.read_model(path))
    config = read_json(path.parent / "config.json")
    settings = read_json(path.parent / "tokenizer_config.json")
    first = next(number for number, piece in enumerate(model.pieces) if piece.text == START)
    offset = settings.get("num_image_tokens", _IMAGE_TOKENS)
    if isinstance(config.get("bos_token_id"), int):
        offset = config["bos_token_id"] - first
    if not isinstance(offset, int) or not 0 <= offset <= _IMAGE_TOKENS:
        raise IntegrityError(f"{path.name}: {START} is piece {first}, and {offset} ids before it")
    return IceVocabulary(model, offset)


def _completed(model: Model) -> Model:
    """With the pieces that the code of older files adds."""
    if any(piece.text == START for piece in model.pieces):
        return model
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    blanks = [name for name in reversed(_SPACES) if name != "<n>"]
    added = [(_SPECIALS, CONTROL), (("<|tab|>", *blanks[:-1]), WRITTEN), (bytes_, BYTE)]
    more = tuple(Piece(name, 0.0, kind) for names, kind in added for name in names)
    return model._replace(pieces=(*model.pieces, *more), byte_fallback=True)


def _tokenizer(model: Model) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    # A text cannot spell a special token: its name begins with what is removed from texts.
    pieces = [
        (f"{_NEVER}{one.text}" if one.kind in (UNKNOWN, CONTROL) else one.text, one.score)
        for one in model.pieces
    ]
    unknown = next((n for n, one in enumerate(model.pieces) if one.kind == UNKNOWN), None)
    if model.is_bpe:
        words = {text: number for number, (text, _) in enumerate(pieces)}
        pairs = sentencepiece.merges(tuple(one for one in model.pieces if one.kind == NORMAL))
        name = None if unknown is None else pieces[unknown][0]
        made = Tokenizer(
            models.BPE(words, pairs, unk_token=name, fuse_unk=True, byte_fallback=True,
                ignore_merges=True)
        )  # fmt: skip
    else:
        made = Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=True))
    written = [normalizers.Replace(space, name) for name, space in _SPACES.items()]
    folding = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    single = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(_NEVER, ""), *written, *folding,
            *(single if model.single_spaces else []),
            *([normalizers.Prepend(SPACE)] if model.leading_space else []),
            normalizers.Replace(" ", SPACE),
        ]
    )  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_SPLITS), "isolated")
    return made
