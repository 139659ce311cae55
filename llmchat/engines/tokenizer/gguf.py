"""The tokenizer in the header of a GGUF file, for the tokenizers library.

The header holds the vocabulary, the merges and the kind of each token (llama.cpp's enum
llama_token_type, which is that of sentencepiece), and names how a text is cut into words
(`tokenizer.ggml.pre`). The patterns are those of the models' own tokenizer.json files; llama.cpp
lists their names in llama-vocab.cpp.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmchat.engines.tokenizer import gguf_pieces, sentencepiece
from llmchat.engines.tokenizer.sentencepiece import CONTROL, NORMAL
from llmchat.errors import IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Marks of turns that some files call words; llmchat's prompts need them as one token.
_MARK = re.compile(r"<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = (
    rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_GPT4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_SEED = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
# Words by the pattern of GPT-2, in which each digit is a word of its own.
_DIGITS = ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b")
_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "exaone4", "trillion", "a.x-4.0")
# Name → the patterns that cut a text, one after the other.
_PATTERNS: dict[str, Sequence[str]] = {
    **dict.fromkeys(
        (
            "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2",
            "midm-2.0", "dbrx", "smaug-bpe", "glm4", "chatglm-bpe",
        ),
        (_LLAMA3,),
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2"), (_QWEN2,)
    ),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), (_GPT4O,)),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK3),
    "qwen35": (_QWEN35,),
    "tekken": (_TEKKEN,),
    "seed-coder": (_SEED,),
    "deepseek-coder": _DEEPSEEK_CODER,
    "bloom": (_BLOOM,),
}  # fmt: skip
# Whose words stay whole where the vocabulary has them, whatever their merges.
_WHOLE_WORDS = (
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "glm4", "tekken",
)  # fmt: skip
# Before whose texts llama.cpp puts a start token where the file does not say.
_OPENED = (*_WHOLE_WORDS[:8], "tekken")
# Of several names for the same way.
_BEST_KNOWN = ("gpt-2", "smollm", "llama-bpe", "qwen2", "stablelm2", "gpt-4o", "deepseek-v3")
_COMPOSED = ("qwen2", "qwen35", "deepseek-r1-qwen", "megrez", "command-r")


def tokenizer_of(facts: Mapping[str, Any]) -> "Tokenizer | None":
    """The tokenizer of a header's facts; None for a kind, or a way to cut words, that is not known
    here. Raises IntegrityError for a vocabulary that does not fit together.
    """
    kind = facts.get("tokenizer.ggml.model")
    tokens, kinds = facts.get("tokenizer.ggml.tokens"), facts.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(kinds, list) or len(kinds) != len(tokens):
        return None
    if len(set(tokens)) != len(tokens) and kind == "gpt2":
        raise IntegrityError("the vocabulary of the GGUF file has a token twice")
    kinds = [
        CONTROL if one == NORMAL and token[:1] == "<" and _MARK.fullmatch(token) else one
        for token, one in zip(tokens, kinds, strict=True)
    ]
    make = _KINDS.get(str(kind))
    made = make(facts, tokens, kinds) if make else None
    if made is not None:
        _open_texts(made, facts, tokens, str(kind))
    return made


def _of_merges(facts: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> "Tokenizer | None":
    from tokenizers import Tokenizer, decoders, models, normalizers

    words, merges = facts.get("tokenizer.ggml.pre"), facts.get("tokenizer.ggml.merges")
    steps = _cutters(str(words))
    if steps is None or not isinstance(merges, list):
        return None
    pairs = gguf_pieces.pairs_of(merges)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=words in _WHOLE_WORDS))
    made.pre_tokenizer = steps
    made.decoder = decoders.ByteLevel()
    if words in _COMPOSED:
        made.normalizer = normalizers.NFC()
    sentencepiece.add_whole(made, zip(tokens, kinds, strict=True))
    return made


_KINDS = {
    "gemma4": gguf_pieces.of_merges,
    "gpt2": _of_merges,
    "llama": gguf_pieces.of_scores,
    "t5": gguf_pieces.of_unigrams,
}


def names_of_words() -> tuple[str, ...]:
    """The names of all ways to cut words, the best known ones first."""
    return tuple(dict.fromkeys((*_BEST_KNOWN, *_GPT2, *_DIGITS, "falcon", *_PATTERNS)))


def cut_words(name: str, texts: Sequence[str]) -> list[Any]:
    """The words of texts with their places, cut in the way of a name."""
    steps = _cutters(name)
    return [steps.pre_tokenize_str(text) for text in texts]


def keeps_words(name: str) -> bool:
    """Whether words that the vocabulary has stay whole, whatever their merges."""
    return name in _WHOLE_WORDS


def composes(name: str) -> bool:
    """Whether letters and their marks become one character first (NFC)."""
    return name in _COMPOSED


def _cutters(name: str) -> Any:
    """The pre-tokenizer of a name; None for an unknown one."""
    from tokenizers import Regex, pre_tokenizers

    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _GPT2:
        return with_words
    if name in _DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, with_words])
    if name == "falcon":
        threes = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation("contiguous"), with_words,
                pre_tokenizers.Digits(individual_digits=False), threes,
            ]
        )  # fmt: skip
    if name not in _PATTERNS:
        return None
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in _PATTERNS[name]]
    return pre_tokenizers.Sequence([*splits, bytes_alone])


def _open_texts(made: "Tokenizer", facts: Mapping[str, Any], tokens: list[str], kind: str) -> None:
    """Put the start token before a text, and the end token behind it, where the file says so."""
    from tokenizers import processors

    opened = kind in ("llama", "gemma4") or facts.get("tokenizer.ggml.pre") in _OPENED
    parts, named = ["$A"], []
    closed = kind == "t5"
    for mark, key, otherwise in (
        ("bos", "add_bos_token", opened), ("eos", "add_eos_token", closed),
    ):  # fmt: skip
        number = facts.get(f"tokenizer.ggml.{mark}_token_id")
        wanted = facts.get(f"tokenizer.ggml.{key}", otherwise)
        if wanted and type(number) is int and 0 <= number < len(tokens):
            parts.insert(0 if mark == "bos" else len(parts), tokens[number])
            named.append((tokens[number], number))
    if named:
        made.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=named
        )
