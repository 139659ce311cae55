"""Scripted models whose answers a test chooses."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scripted_models import LIVE, FunctionModel

from llmchat.models import loading, locate

Answers = Callable[[str, str], Any]


@pytest.fixture
def scripted_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answers], list[str]]]:
    """Let `answers(model, question)` answer for all scripted models.

    Returns a list that grows by a model's name each time one is loaded.
    """

    def use(answers: Answers) -> list[str]:
        loaded: list[str] = []

        def make(model: locate.Model, options: Any, progress: Any) -> FunctionModel:
            gc.disable()
            loaded.append(model.preset.name)
            return FunctionModel(model.preset.name, answers)

        monkeypatch.setitem(loading._ENGINES, "scripted", make)  # type: ignore[arg-type]
        return loaded

    LIVE.clear()
    yield use
    gc.enable()
