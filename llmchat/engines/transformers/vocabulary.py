"""The vocabulary of a checkpoint, for every architecture: its size, and token ids against it."""

from collections.abc import Iterable, Mapping, Sequence

from llmchat.errors import Mismatch, UsageError

# The last part of the input embedding's name, by architecture.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "shared.weight",
    "embeddings.weight",
)


def vocabulary_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the input embedding; 0 if no tensor has a name that is known for it."""
    embeddings = (
        shape for name, shape in shapes.items() if len(shape) == 2 and name.endswith(_EMBEDDINGS)
    )
    return next(embeddings, (0,))[0]


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raise Mismatch if there are no ids, or one beyond the embedding. vocabulary 0 accepts any."""
    if not ids:
        raise Mismatch("the prompt is empty: template and tokenizer make no token of it")
    invalid = next((id for id in ids if vocabulary and not 0 <= id < vocabulary), None)
    if invalid is not None:
        raise Mismatch(
            f"the tokenizer produced token {invalid:,}; the model has {vocabulary:,} tokens",
            "the tokenizer belongs to another model, or tokens were added without resizing the"
            " weights",
        )


def check_bias(ids: Iterable[int], vocabulary: int) -> None:
    """Raise UsageError for a biased token that the model does not have. 0 accepts any."""
    unknown = next((id for id in ids if vocabulary and id >= vocabulary), None)
    if unknown is not None:
        raise UsageError(
            f"logit_bias: there is no token {unknown:,}; the model has {vocabulary:,} tokens",
            "`llmchat prompt --ids` prints the ids of a text",
        )
