"""Records to token ids, with the format and tokenizer of a chat.

Every token that the model is to write is marked as a label.
"""

from collections.abc import Iterable

from msgspec import Struct

from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, UsageError
from llmchat.finetune.recipes import Recipe
from llmchat.finetune.records import Record
from llmchat.prompt import Prompt, PromptFormat

IGNORED = -100


class Example(Struct, frozen=True):
    """Token ids, and the label of each: its own id, or IGNORED."""

    ids: list[int]
    labels: list[int]

    @property
    def learnt(self) -> int:
        return sum(label != IGNORED for label in self.labels)


class Examples(Struct, frozen=True):
    """The examples of a set of records. skipped: over the cutoff; cut: shortened to it, without an
    end.
    """

    examples: list[Example]
    skipped: int
    cut: int

    @property
    def tokens(self) -> int:
        return sum(len(example.ids) for example in self.examples)


def write_examples(
    records: Iterable[Record], form: PromptFormat, tokens: Tokenizer, recipe: Recipe
) -> Examples:
    """Every record as an example. Raises UsageError for a record that the format cannot render."""
    examples, skipped, cut = [], 0, 0
    for record in records:
        example = write_example(record, form, tokens, recipe)
        if len(example.ids) > recipe.cutoff:
            if recipe.long == "skip":
                skipped += 1
                continue
            cut += 1
            example = Example(example.ids[: recipe.cutoff], example.labels[: recipe.cutoff])
        if example.learnt:
            examples.append(example)
        else:
            skipped += 1
    return Examples(examples, skipped, cut)


def write_example(record: Record, form: PromptFormat, tokens: Tokenizer, recipe: Recipe) -> Example:
    """One record. If the format has no end mark, the model's end token is added and learned."""
    try:
        prompt = form.render(record.messages) if record.messages else _plain(record.text)
    except LlmchatError as error:
        raise UsageError(f"{record.place}: {error.message}", error.hint) from error
    apart = tokens.melts(prompt)
    ids, learnt = tokens.encode(prompt, apart=apart), tokens.learnt(prompt, apart=apart)
    # White space after the last end mark would begin the next turn, so it is not learned.
    last = max((index for index, mark in enumerate(learnt) if mark), default=-1)
    ids, learnt = ids[: last + 1], learnt[: last + 1]
    if ids and ids[-1] not in tokens.stop_ids(prompt):
        ids, learnt = [*ids, _end(tokens)], [*learnt, True]
    if recipe.loss_on == "everything":
        learnt = [True] * len(ids)
    return Example(
        ids, [token if mark else IGNORED for token, mark in zip(ids, learnt, strict=True)]
    )


def _plain(text: str) -> Prompt:
    """A text without speakers: all of it is learned."""
    return Prompt(text, (), learn=((0, len(text)),), quoted=((0, len(text)),))


def _end(tokens: Tokenizer) -> int:
    """The token that ends an answer: the tokenizer's, or the smallest of the config's."""
    named = tokens.id_of(tokens.names.get("eos_token", ""))
    if named is not None:
        return named
    if not tokens.end_ids:
        raise UsageError("this model has no end token, so it could not learn to stop")
    return min(tokens.end_ids)
