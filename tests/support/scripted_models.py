"""Scripted models by name, of which one may be in memory at a time."""

import weakref
from collections.abc import Callable, Generator
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.prompt import Prompt

SCRIPTED = {"engine": "scripted", "temperature": 0.0}


TWO = ("smollm2", "alpaca-lora-7b")


LIVE: "weakref.WeakSet[ScriptedEngine]" = weakref.WeakSet()


class FunctionModel(ScriptedEngine):
    """Answers with `answers(name, question)`, or raises it where it is an exception."""

    def __init__(self, name: str, answers: Callable[[str, str], Any]):
        super().__init__()
        assert not list(LIVE), "another model is still in memory"
        LIVE.add(self)
        self.me: Any = self  # a reference cycle, as torch's models have
        self._name, self._answers = name, answers

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        answer = self._answers(self._name, prompt.messages[-1].text)
        if isinstance(answer, BaseException):
            raise answer
        self._replies = (answer,)
        return super().stream(prompt, sampling)
