"""How an embedder or a reranker was trained to be used: facts that its weights do not tell."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

_Size = Annotated[int, Meta(ge=1)]


class EmbeddingSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """From a text to a vector.

    dimensions: numbers of a vector. shortest: the fewest that it can be cut to (Matryoshka); 0 if
    it was not trained for that. longest: most tokens of a text, with prefix and special tokens.
    query, passage: what is written before a question and before a passage. pooling: which tokens'
    vectors become that of the text. dense: folders of linear layers that follow the pooling.
    norm_before_cut: a layer norm precedes the cut to fewer dimensions. normalise: vectors get
    length 1. ends_with: a token that is appended to each text unless the tokenizer does it.
    """

    dimensions: _Size
    longest: _Size
    pooling: Literal["mean", "cls", "last"] = "mean"
    query: str = ""
    passage: str = ""
    dense: tuple[str, ...] = ()
    shortest: Annotated[int, Meta(ge=0)] = 0
    norm_before_cut: bool = False
    normalise: bool = True
    ends_with: str = ""


class RerankSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A cross-encoder with one output. longest: most tokens of question and passage together."""

    longest: _Size
