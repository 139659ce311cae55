"""`llmchat bench`: what is timed, who takes part, and what is printed."""

from pathlib import Path

import pytest
from checkpoints import save_tiny

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.prompt import Prompt


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_no_token_ends_an_answer_that_ignores_them(tiny: Path) -> None:
    engine = TransformersEngine(tiny, weights="fp32", device="cpu")
    first = int(engine.logits(engine.encode(Prompt("the quick", ()))).argmax())
    prompt = Prompt("the quick", (), stop_ids=(first,))

    def finish(sampling: Sampling) -> Finish:
        *_, last = engine.stream(prompt, sampling)
        assert not isinstance(last, Chunk)
        return last

    assert finish(Sampling(temperature=0, max_tokens=9)).reply_tokens == 1
    assert finish(Sampling(temperature=0, max_tokens=9, ignore_eos=True)).reply_tokens == 9
