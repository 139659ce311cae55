"""The marks around a model's thoughts, found in its chat template.

Families differ: most write <think>, others have special tokens of their own, and gpt-oss writes
messages in channels (harmony, https://github.com/openai/harmony/blob/main/docs/format.md).
"""

import re

Marks = tuple[str, str]

THINK: Marks = ("<think>", "</think>")
# What opens harmony's thoughts, and what ends them where no tools are offered: the start of the
# answer. `engines.channel_filter` reads every order of messages that models write.
ANSWER_CHANNEL = "<|channel|>final<|message|>"
CHANNELS: Marks = (
    "<|channel|>analysis<|message|>",
    f"<|end|><|start|>assistant{ANSWER_CHANNEL}",
)
# Marks of families whose templates mention <think> too, or nothing else.
_FAMILIES: tuple[Marks, ...] = (
    CHANNELS,
    ("<|channel>thought\n", "<channel|>"),  # Gemma 4
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
)
_TOKEN = re.compile(r"<\|?/?[\w:]+\|?>|\[/?[A-Z]+\]")


def marks_in(template: str) -> Marks:
    """The marks that a chat template has for thoughts; <think> if none."""
    return next((marks for marks in _FAMILIES if are_in(template, marks)), THINK)


def are_in(template: str, marks: Marks) -> bool:
    """Whether a chat template, or a written format, has one of the marks."""
    # A text with a line end is written \n in a string of Jinja.
    spelt = template.replace(r"\n", "\n")
    return any(mark in spelt for mark in (("<|channel|>",) if marks[0] == CHANNELS[0] else marks))


def tokens_of(marks: Marks) -> tuple[str, ...]:
    """What the marks consist of that a tokenizer may hold as a special token."""
    return tuple(dict.fromkeys(token for mark in marks for token in _TOKEN.findall(mark)))


def parts_of(mark: str) -> list[str]:
    """A mark, cut around what a tokenizer may hold as a special token."""
    return [part for part in re.split(f"({_TOKEN.pattern})", mark) if part]
