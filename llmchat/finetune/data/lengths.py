"""The lengths of records: in tokens of a pulled model, or estimated from their bytes."""

from array import array
from collections.abc import Callable

from msgspec import Struct

from llmchat.errors import LlmchatError, ModelNotFound
from llmchat.finetune.data.flaws import texts
from llmchat.finetune.records import Record, disorder
from llmchat.presets import Preset
from llmchat.settings import World

Count = Callable[[Record], int]
# True of English text with LLaMA's and today's vocabularies; Chinese has three bytes and about one
# token per character.
_BYTES_PER_TOKEN = 4


class Lengths(Struct, frozen=True):
    median: int
    """Median."""
    p95: int
    """95th percentile."""
    longest: int
    """Maximum."""


def summary(values: "array[int]") -> Lengths:
    """Nearest ranks; zeros without values."""
    ordered = sorted(values) or [0]
    return Lengths(
        *(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 1.0))
    )


def estimate(record: Record) -> int:
    return -(
        -sum(len(text.encode("utf-8", "surrogatepass")) for text in texts(record))
        // _BYTES_PER_TOKEN
    )


def counter(preset: Preset | None, world: World) -> tuple[Count, str]:
    """A function that counts the tokens of a record as training renders it.

    The text is "", or the reason why the function only estimates them.
    """
    if preset is None:
        return estimate, "tokens are estimated as bytes / 4; --model counts them"
    from llmchat.models.loading import tokenizer
    from llmchat.models.locate import locate

    try:
        model = locate(preset, world)
        tokens = tokenizer(model)
    except ModelNotFound as error:
        return estimate, f"{error.message}: tokens are estimated as bytes / 4"

    def count(record: Record) -> int:
        if record.text:
            return tokens.count(record.text)
        if disorder(record.messages):
            return estimate(record)
        try:
            return len(tokens.encode(model.preset.format.render(record.messages)))
        except LlmchatError as error:
            raise type(error)(f"{record.place}: {error.message}", error.hint) from error

    return count, ""
