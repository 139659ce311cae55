"""Tokenizers of GGUF files whose tokens are pieces of sentencepiece, with `▁` for a space: byte
pairs with scores (Llama, Gemma) or with merges (Gemma 4), and unigrams (T5).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmchat.engines.tokenizer import sentencepiece
from llmchat.engines.tokenizer.sentencepiece import BYTE, CONTROL, SPACE, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Facts = Mapping[str, Any]
_UNUSED, _SENTINELS, _PADDING = 5, 100, re.compile(r"\[PAD\d+\]")


def of_scores(facts: Facts, tokens: list[str], kinds: list[int]) -> "Tokenizer | None":
    """Byte pairs whose order is in their scores, as sentencepiece stores them."""
    scores = _scores(facts, tokens)
    if scores is None:
        return None
    pieces = tuple(map(sentencepiece.Piece, tokens, scores, kinds))
    leading = bool(facts.get("tokenizer.ggml.add_space_prefix", True))
    model = sentencepiece.Model(pieces, True, BYTE in kinds, b"", leading, False)
    return sentencepiece.make_tokenizer(model, {}, frozenset())


def of_unigrams(facts: Facts, tokens: list[str], kinds: list[int]) -> "Tokenizer | None":
    """The most probable pieces, as sentencepiece stores them."""
    scores = _scores(facts, tokens)
    if scores is None:
        return None
    tokens, kinds = _with_sentinels(tokens, kinds)
    pieces = tuple(map(sentencepiece.Piece, tokens, scores, kinds))
    model = sentencepiece.Model(
        pieces,
        False,
        BYTE in kinds,
        bytes(one & 0xFF for one in facts.get("tokenizer.ggml.precompiled_charsmap", ())),
        bool(facts.get("tokenizer.ggml.add_space_prefix", True)),
        bool(facts.get("tokenizer.ggml.remove_extra_whitespaces", True)),
    )
    return sentencepiece.make_tokenizer(model, {}, frozenset())


def _with_sentinels(tokens: list[str], kinds: list[int]) -> tuple[list[str], list[int]]:
    """T5's `<extra_id_99>` to `<extra_id_0>`, which converters call paddings."""
    paddings = [at for at, kind in enumerate(kinds) if kind == _UNUSED]
    places = [at for at in paddings if _PADDING.fullmatch(tokens[at])][:_SENTINELS]
    names = {at: f"<extra_id_{_SENTINELS - 1 - rank}>" for rank, at in enumerate(places)}
    named = [names.get(at, token) for at, token in enumerate(tokens)]
    return named, [CONTROL if at in names else kind for at, kind in enumerate(kinds)]


def _scores(facts: Facts, tokens: Sequence[str]) -> list[float] | None:
    scores = facts.get("tokenizer.ggml.scores")
    return scores if isinstance(scores, list) and len(scores) == len(tokens) else None


def of_merges(facts: Facts, tokens: list[str], kinds: list[int]) -> "Tokenizer | None":
    """Byte pairs with merges, and bytes for what no piece spells."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    merges = facts.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        return None
    unknown = next((tokens[at] for at, kind in enumerate(kinds) if kind == UNKNOWN), None)
    made = Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(tokens)},
            pairs_of(merges),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    sentencepiece.add_whole(made, zip(tokens, kinds, strict=True))
    return made


def pairs_of(merges: Iterable[str]) -> list[tuple[str, str]]:
    """Merges as a file has them, each two tokens with a space between them."""
    return [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
