"""From records to token ids, by the way of a chat: the same format, the same tokenizer, and a mark on every token the model writes."""

from collections.abc import Iterable

from msgspec import Struct

from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, UsageError
from llmchat.finetune.recipes import Recipe
from llmchat.finetune.records import Record
from llmchat.prompt import Prompt, PromptFormat

IGNORED = -100


class Example(Struct, frozen=True):
    """Token ids, and for each the id that the loss wants there: its own, or IGNORED."""

    ids: list[int]
    labels: list[int]

    @property
    def learnt(self) -> int:
        return sum(label != IGNORED for label in self.labels)


class Examples(Struct, frozen=True):
    """What a set of records became. skipped: too long for the cutoff; cut: shortened to it, and without an end."""

    examples: list[Example]
    skipped: int
    cut: int

    @property
    def tokens(self) -> int:
        return sum(len(example.ids) for example in self.examples)


def write_examples(
    records: Iterable[Record], form: PromptFormat, tokens: Tokenizer, recipe: Recipe
) -> Examples:
    """Every record as an example. Raises UsageError naming the record that the format cannot write."""
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
    """One record. Where the format writes no end mark, the model's end token is put behind the last answer, and learnt."""
    try:
        prompt = form.render(record.messages) if record.messages else _plain(record.text)
    except LlmchatError as error:
        raise UsageError(f"{record.place}: {error.message}", error.hint) from error
    apart = tokens.melts(prompt)
    ids, learnt = tokens.encode(prompt, apart=apart), tokens.learnt(prompt, apart=apart)
    # White space behind the last end mark is what a next turn would begin with; nothing learns it.
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
    """A text without speakers: all of it is learnt."""
    return Prompt(text, (), learn=((0, len(text)),), quoted=((0, len(text)),))


def _end(tokens: Tokenizer) -> int:
    """The token that ends an answer: the tokenizer's own, else the least of those that the config names."""
    named = tokens.id_of(tokens.names.get("eos_token", ""))
    if named is not None:
        return named
    if not tokens.end_ids:
        raise UsageError("this model has no end token, so no answer could learn to stop")
    return min(tokens.end_ids)
