"""What a benchmark times: answers of a model that stays loaded."""

from pathlib import Path

import pytest

from llmchat.bench import worker
from llmchat.engines.gguf import GgufEngine, llama


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[llama.Settings]:
    """The settings of each model that llama.cpp loads."""
    counted: list[llama.Settings] = []

    class Counting(llama.Llama):
        def __init__(self, settings: llama.Settings, *, noisy: bool = False):
            counted.append(settings)
            super().__init__(settings, noisy=noisy)

    monkeypatch.setattr("llmchat.engines.gguf.Llama", Counting)
    return counted


def test_measurements_load_no_model_again(
    smol_gguf: Path, smol_facts: Path, loads: list[llama.Settings]
) -> None:
    engine = GgufEngine(smol_gguf, smol_facts, context=512, device="cpu")
    assert len(loads) == 1
    for _ in range(2):
        finish, _ = worker.timed_answer(engine, worker.SHORT, 4)
        assert finish.reply_tokens == 4
        assert finish.cached_tokens == 0, "each measurement reads its whole prompt"
    assert len(loads) == 1
    engine.unload()
