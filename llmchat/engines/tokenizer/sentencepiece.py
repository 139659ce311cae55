"""Reads a sentencepiece model (`tokenizer.model`, `spiece.model`) into the tokenizers library.

Checkpoints from before tokenizer.json have only this file. It is a protobuf message of a few
fields, parsed here so that neither sentencepiece nor protobuf is required. Field numbers are those
of google/sentencepiece `sentencepiece_model.proto`; merges and normalisation follow transformers'
`convert_slow_tokenizer.py`.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmchat.errors import IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, WRITTEN, BYTE = 1, 2, 3, 4, 6
_BPE = 2


class Piece(NamedTuple):
    """One token. kind: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""

    text: str
    score: float
    kind: int


class Model(NamedTuple):
    """The contents of a sentencepiece file. charsmap: its compiled normalisation; b"" for none."""

    pieces: tuple[Piece, ...]
    is_bpe: bool
    byte_fallback: bool
    charsmap: bytes
    leading_space: bool
    single_spaces: bool


def read_model(path: Path) -> Model:
    """Read a sentencepiece file. Raises IntegrityError for anything else."""
    try:
        parts: dict[int, list[Any]] = {1: [], 2: [b""], 3: [b""]}
        for number, value in _fields(path.read_bytes()):
            parts.setdefault(number, []).append(value)
        pieces = tuple(_piece(dict(_fields(data))) for data in parts[1])
        trainer, normaliser = (dict(_fields(parts[number][-1])) for number in (2, 3))
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise IntegrityError(f"{path} is not a sentencepiece model: {error}") from error
    if not pieces:
        raise IntegrityError(f"{path} is not a sentencepiece model: it has no pieces")
    return Model(
        pieces,
        is_bpe=trainer.get(3, 1) == _BPE,
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normaliser.get(2, b""),
        leading_space=bool(normaliser.get(3, 1)),
        single_spaces=bool(normaliser.get(4, 1)),
    )


def make_tokenizer(model: Model, added: dict[str, int], special: frozenset[str]) -> "Tokenizer":
    """The tokenizer of a sentencepiece model.

    added: tokens after its own ones, with their ids; special: which of them are special.
    """
    from tokenizers import AddedToken

    tokenizer = _bpe(model) if model.is_bpe else _unigram(model)
    add_whole(tokenizer, ((piece.text, piece.kind) for piece in model.pieces))
    for text, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_tokens([AddedToken(text, normalized=False, special=text in special)])
        if tokenizer.token_to_id(text) != number:
            raise IntegrityError(
                f"the added token `{text}` has the id {number}, which does not follow the"
                f" {len(model.pieces)} pieces and the added tokens before it"
            )
    return tokenizer


def add_whole(tokenizer: "Tokenizer", tokens: Iterable[tuple[str, int]]) -> None:
    """Let a tokenizer find those tokens in a text, before it cuts the text, that are special or
    user-defined. tokens: all of its own, with their kinds.
    """
    from tokenizers import AddedToken

    special, written = list[AddedToken](), list[AddedToken]()
    for text, kind in tokens:
        if kind in (UNKNOWN, CONTROL):
            special.append(AddedToken(text, normalized=False))
        elif kind == WRITTEN:
            written.append(AddedToken(text, normalized=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(written)


def merges(pieces: tuple[Piece, ...]) -> list[tuple[str, str]]:
    """The merges of a BPE model: every way to split a piece in two, best pieces first.

    The file has no merges, only a score for each piece.
    """
    known = {piece.text for piece in pieces}
    found: list[tuple[str, str]] = []
    ordered = sorted(pieces, key=itemgetter(1), reverse=True)
    for _, alike in groupby(ordered, key=itemgetter(1)):
        texts = [piece.text for piece in alike]
        splits = [pair for text in texts for pair in _splits(text, known)]
        if len(texts) > 1:
            splits.sort(key=lambda pair: (len(pair[0]), len(pair[1])), reverse=True)
        found += splits
    return found


def _splits(text: str, known: set[str]) -> Iterator[tuple[str, str]]:
    """The ways to split a piece into two known ones, the longest left side first."""
    for cut in range(len(text) - 1, 0, -1):
        if text[:cut] in known and text[cut:] in known:
            yield text[:cut], text[cut:]


def _bpe(model: Model) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    unknown = next((piece.text for piece in model.pieces if piece.kind == UNKNOWN), None)
    pairs = merges(tuple(piece for piece in model.pieces if piece.kind == NORMAL))
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Precompiled(model.charsmap)] if model.charsmap else []),
            *([normalizers.Prepend(SPACE)] if model.leading_space else []),
            normalizers.Replace(" ", SPACE),
        ]
    )
    strip = [decoders.Strip(content=" ", left=1)] if model.leading_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _unigram(model: Model) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    unknown = next(
        (number for number, piece in enumerate(model.pieces) if piece.kind == UNKNOWN), None
    )
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=unknown, byte_fallback=model.byte_fallback)
    )
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.single_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if model.leading_space else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    return tokenizer


def _piece(fields: dict[int, Any]) -> Piece:
    return Piece(
        fields[1].decode("utf-8"),
        struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0,
        fields.get(3, 1),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protobuf message: an int for a varint, else bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, position after it) of a number written in groups of 7 bits, lowest first."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
