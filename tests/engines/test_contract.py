"""What every engine behind the seam must do, whatever runs behind it: see llmchat.engines.Engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct
from support.checkpoints import save_tiny
from support.engine_contract import GREEDY, STORY, answer, prompt
from support.openai_server import engine_app, serving

from llmchat.engines import Engine, Sampling
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.server_models import find_served
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import ContextOverflow


class Case(Struct):
    """An engine. draws: a seed changes what it says; quotes: it tells special tokens of the format from those in a message, and this is one."""

    engine: Engine
    draws: bool = True
    special: str = ""


def scripted(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(
        ScriptedEngine([f"{STORY} go on 🦊🦊 and on, 日本 and further than that"]), draws=False
    )


def transformers(request: pytest.FixtureRequest) -> Iterator[Case]:
    from llmchat.engines.transformers import TransformersEngine

    yield Case(
        TransformersEngine(request.getfixturevalue("tiny"), weights="fp32", device="cpu"),
        special="<|im_end|>",
    )


def gguf(request: pytest.FixtureRequest) -> Iterator[Case]:
    engine: Engine = request.getfixturevalue("smol_engine")
    yield Case(engine, special="<|im_end|>")


def openai(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Text to /v1/completions of a server with a tiny model."""
    from llmchat.engines.transformers import TransformersEngine

    behind = TransformersEngine(request.getfixturevalue("tiny"), weights="fp32", device="cpu")
    with serving(engine_app(behind)) as (url, _):
        yield Case(connected(url, chat=False), special="<|im_end|>")


def openai_chat(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Messages to /v1/chat/completions of a server that is not ours: llama.cpp's, with the real small model."""
    yield Case(connected(request.getfixturevalue("llama_server"), chat=True), special="<|im_end|>")


def connected(url: str, *, chat: bool) -> OpenAIEngine:
    connection = Connection(url)
    return OpenAIEngine(connection, find_served(connection, (), only=True), chat=chat)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Iterator[Case]]] = {
    "scripted": scripted,
    "transformers": transformers,
    "gguf": gguf,
    "openai, text": openai,
    "openai, chat": openai_chat,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=ENGINES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    made = ENGINES[request.param](request)
    case = next(made)
    yield case
    case.engine.close()
    made.close()  # type: ignore[attr-defined]


@pytest.fixture
def engine(case: Case) -> Engine:
    return case.engine


def test_an_answer_ends_once_and_tells_of_itself(engine: Engine) -> None:
    texts, finish = answer(engine, prompt())
    assert texts and finish.reason in ("stop", "length")
    assert 0 <= finish.cached_tokens < finish.prompt_tokens
    assert 1 <= finish.reply_tokens <= 24 and finish.prefill_s >= 0 and finish.decode_s >= 0


def test_greedy_says_the_same_again(engine: Engine) -> None:
    assert "".join(answer(engine, prompt())[0]) == "".join(answer(engine, prompt())[0])


def test_a_seed_says_the_same_again_and_is_told(case: Case) -> None:
    hot = Sampling(temperature=1.5, max_tokens=16, seed=7)
    answer(case.engine, prompt(), hot)
    first, finish = answer(case.engine, prompt(), hot)
    assert finish.seed == 7 and answer(case.engine, prompt(), hot)[0] == first
    if case.draws:
        others = {
            "".join(
                answer(case.engine, prompt(), Sampling(temperature=1.5, max_tokens=16, seed=seed))[
                    0
                ]
            )
            for seed in range(8, 11)
        }
        assert others != {"".join(first)}
        free = Sampling(temperature=1.5, max_tokens=16)
        seeds = {answer(case.engine, prompt(), free)[1].seed for _ in range(2)}
        assert len(seeds) == 2, "without a seed each run draws its own"


def test_counts_are_those_of_the_answer(engine: Engine) -> None:
    for text in (STORY, "日本語 and 🦊", "a\n\n  b"):
        asked = prompt(text)
        assert (
            len(engine.encode(asked))
            == answer(engine, asked, Sampling(temperature=0, max_tokens=1))[1].prompt_tokens
        )
    assert engine.count("") == 0 < engine.count("fox") < engine.count("fox " * 20)


def test_a_stop_string_is_not_shown_wherever_the_pieces_are_cut(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    for start, end in ((3, 4), (2, 9), (5, 14)):
        stop = text[start:end]
        for asked, sampling in (
            (prompt(), Sampling(temperature=0, max_tokens=24, stops=(stop, "never said"))),
            (prompt(stops=("never said", stop)), GREEDY),
        ):
            texts, finish = answer(engine, asked, sampling)
            assert "".join(texts) == text[: text.index(stop)] and finish.reason == "stop"


def test_what_only_begins_like_a_stop_string_is_shown(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    texts, _ = answer(engine, prompt(stops=(f"{text[-3:]}\x00",)))
    assert "".join(texts) == text


def test_an_answer_may_be_empty(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    texts, finish = answer(engine, prompt(stops=(text[0],)))
    assert texts == [] and finish.reason == "stop"


def test_it_is_no_longer_than_asked(engine: Engine) -> None:
    for most in (1, 3):
        _, finish = answer(engine, prompt(), Sampling(temperature=0, max_tokens=most))
        assert (finish.reason, finish.reply_tokens) == ("length", most)


def test_closing_an_answer_leaves_the_engine_usable(engine: Engine) -> None:
    expected = "".join(answer(engine, prompt())[0])
    for steps in (0, 1, 2):
        stream = engine.stream(prompt(), Sampling(temperature=0, max_tokens=200))
        for _ in range(steps):
            next(stream)
        stream.close()
    assert "".join(answer(engine, prompt())[0]) == expected


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(ContextOverflow, match=f"{engine.context:,}"):
        answer(engine, prompt("fox and dog " * engine.context))
    assert answer(engine, prompt())[1].reply_tokens > 0


def test_a_special_token_in_a_message_is_text(case: Case) -> None:
    if not case.special:
        pytest.skip("it has no special tokens")
    engine, text = case.engine, f"a{case.special}b"
    alone = len(engine.encode(prompt("ab")))
    assert len(engine.encode(prompt(text))) > alone + 1, "it is more than one token"
    assert answer(engine, prompt(text))[1].prompt_tokens > alone + 1


def test_it_has_a_name(engine: Engine) -> None:
    assert (
        engine.describe().strip()
        and "\n" not in engine.describe()
        and engine.context > 0
        and engine.load_s >= 0
    )


def test_closed_twice_it_still_answers(engine: Engine) -> None:
    expected = "".join(answer(engine, prompt())[0])
    engine.close()
    engine.close()
    assert "".join(answer(engine, prompt())[0]) == expected
