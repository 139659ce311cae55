"""Answers of tiny engines under a guide."""

from pathlib import Path
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling, Token
from llmchat.engines.guide.checking import bytes_tokenizer
from llmchat.engines.guide.grammar import grammar_of
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.generation import RunningAnswer
from llmchat.prompt import Prompt
from llmchat.structure import Structure


def open_tiny(base: Path, kernels: Path | None = None, **options: Any) -> TransformersEngine:
    """The compiled executor with `kernels`, else torch's."""
    weights: Any = "int8" if kernels else "fp32"
    return TransformersEngine(base, weights=weights, device="cpu", kernels=kernels, **options)


def answer(
    engine: TransformersEngine, sampling: Sampling, text: str = "the quick brown fox", **prompt: Any
) -> tuple[str, Finish, list[Token]]:
    """Text, end and tokens of an answer."""
    *chunks, finish = engine.stream(Prompt(text, (), **prompt), sampling)
    assert isinstance(finish, Finish)
    shown = [chunk for chunk in chunks if isinstance(chunk, Chunk)]
    return (
        "".join(chunk.text for chunk in shown),
        finish,
        [token for chunk in shown for token in chunk.tokens],
    )


def together(engine: TransformersEngine, answers: list[RunningAnswer]) -> list[str]:
    """The texts of several answers in the same calls of the model."""
    texts = [""] * len(answers)
    while running := [index for index, one in enumerate(answers) if not one.done]:
        events = engine.step([answers[index] for index in running])
        for index, some in zip(running, events, strict=True):
            texts[index] += "".join(event.text for event in some if isinstance(event, Chunk))
    return texts


def accepts(structure: Structure, text: str) -> bool:
    """Whether a text has a structure, by the bytes alone."""
    from llguidance import LLMatcher

    matcher = LLMatcher(bytes_tokenizer(), grammar_of(structure), log_level=0)
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()
