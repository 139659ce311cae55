"""GLM-4's own tokenizer file: lines of a token in base64 and its rank, as tiktoken reads them.

A token's rank is its id and its place among the merges. The pattern that splits a text is that of
tokenization_chatglm.py of THUDM/glm-4-9b-chat.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.engines.tokenizer.byte_level import byte_of
from llmchat.errors import IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s*")
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def is_tiktoken(path: Path) -> bool:
    """Whether a file begins with such a line; a sentencepiece model is binary."""
    with path.open("rb") as file:
        return bool(_LINE.fullmatch(file.readline(400)))


def read_tiktoken(path: Path, specials: dict[str, int]) -> "Tokenizer":
    """The tokenizer of such a file with these special tokens. Raises IntegrityError."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks = _ranks(path)
    letters = {byte: letter for letter, byte in byte_of().items()}
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    words = {names[token]: rank for token, rank in ranks.items()}
    pairs = [(names[left], names[right]) for left, right in _merges(ranks)]
    made = Tokenizer(models.BPE(words, pairs, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    for name, number in sorted(specials.items(), key=lambda one: one[1]):
        made.add_special_tokens([AddedToken(name, normalized=False)])
        if made.token_to_id(name) != number:
            raise IntegrityError(f"{path.name}: `{name}` cannot have the id {number}")
    return made


def _ranks(path: Path) -> dict[bytes, int]:
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise IntegrityError(f"{path} is not a tokenizer of ranks: {error}") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(ranks):
        raise IntegrityError(f"{path} is not a tokenizer of ranks: they are not 0, 1, 2, …")
    return ranks


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to split a token in two, the tokens in the order of their ranks."""
    found = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
        found += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found
