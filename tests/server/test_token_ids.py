"""Prompts as token ids: /v1/completions reads exactly these tokens."""

from collections.abc import Iterator

import pytest
from support.checkpoints import save_tiny, tiny_config
from support.serving import Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine
from llmchat.prompt import Prompt

ASK = {"model": "tiny", "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(
        save_tiny(tmp_path_factory.mktemp("tiny"), tiny_config()), weights="fp32", device="cpu"
    )


@pytest.fixture(scope="module")
def run(engine: TransformersEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {
        "tiny": model_spec(lambda: engine, key="tiny"),
        "text": model_spec(lambda: ScriptedEngine(["Hello."]), key="text"),
    }
    with serving(models, tmp_path_factory.mktemp("server")) as running:
        yield running


def test_the_ids_of_a_text_get_the_answer_of_the_text(
    run: Running, engine: TransformersEngine
) -> None:
    texts = ["the quick brown fox", "question and answer"]
    ids = [engine.encode(Prompt(text, ())) for text in texts]
    by_text = run.http.post("/v1/completions", json=ASK | {"prompt": texts}).json()
    by_ids = run.http.post("/v1/completions", json=ASK | {"prompt": ids}).json()
    assert [one["text"] for one in by_ids["choices"]] == [one["text"] for one in by_text["choices"]]
    assert (
        by_ids["usage"]["prompt_tokens"] == by_text["usage"]["prompt_tokens"] == sum(map(len, ids))
    )
    alone = run.http.post("/v1/completions", json=ASK | {"prompt": ids[0]}).json()
    assert alone["choices"][0]["text"] == by_text["choices"][0]["text"]


def test_token_ids_get_no_prefix_and_echo_returns_their_text(
    run: Running, engine: TransformersEngine
) -> None:
    bare = engine.encode(Prompt("fox", ()))[-1:]
    answer = run.http.post("/v1/completions", json=ASK | {"prompt": bare, "echo": True}).json()
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["choices"][0]["text"].startswith(engine.prompt_of(bare).text)


@pytest.mark.parametrize("ids", [[320], [-1], [5, 10**12]])
def test_token_ids_outside_the_vocabulary_are_refused(run: Running, ids: list[int]) -> None:
    answer = run.http.post("/v1/completions", json=ASK | {"prompt": ids})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt"


def test_too_many_ids_and_engines_without_token_ids_are_errors(run: Running) -> None:
    long = run.http.post("/v1/completions", json=ASK | {"prompt": [5] * 5000})
    assert long.status_code == 400 and "5,000 tokens" in long.json()["error"]["message"]
    for prompt in ([], [[]]):
        assert (
            run.http.post("/v1/completions", json=ASK | {"prompt": prompt}).json()["error"][
                "message"
            ]
            == "`prompt` is empty"
        )
    text = run.http.post("/v1/completions", json={"model": "text", "prompt": [1, 2]}).json()[
        "error"
    ]
    assert text["message"] == "this model's engine does not support prompts as token ids"
