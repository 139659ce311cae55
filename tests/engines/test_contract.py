"""What every engine must do, whatever runs behind it: see llmchat.engines.Engine."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace
from support.checkpoints import save_tiny
from support.engine_contract import GREEDY, STORY, answer, prompt
from support.openai_server import engine_app, serving
from support.worlds import make_world

from llmchat.background import process
from llmchat.engines import Engine, Sampling, Unloaded
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.server_models import find_served
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import ContextOverflow
from llmchat.models.open_model import open_in_background
from llmchat.prompt import ThinkingMarks
from llmchat.server.single_slot import SingleSlot
from llmchat.settings import World
from llmchat.structure import from_choices


class Case(Struct):
    """An engine. draws: its answers depend on the seed. special: a special token of its format,
    empty if it has none. own_cache: its cache is in this process, not in a server.
    structures: llmchat's own engines enforce structures, and here one does.
    """

    engine: Engine
    draws: bool = True
    special: str = ""
    own_cache: bool = True
    structures: bool = False


Build = Callable[[pytest.FixtureRequest], Iterator[Case]]


def scripted(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(scripted_engine(), draws=False)


def loading(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(LoadingEngine(scripted_engine, "a model"), draws=False)


def single_slot(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(SingleSlot(scripted_engine()), draws=False)


def scripted_engine() -> ScriptedEngine:
    return ScriptedEngine([f"{STORY} go on 🦊🦊 and on, 日本 and further than that"])


def transformers(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(transformers_engine(request), special="<|im_end|>", structures=True)


def transformers_engine(request: pytest.FixtureRequest) -> Engine:
    from llmchat.engines.transformers import TransformersEngine

    return TransformersEngine(request.getfixturevalue("tiny"), weights="fp32", device="cpu")


def gguf(request: pytest.FixtureRequest) -> Iterator[Case]:
    pytest.importorskip("xllamacpp")
    from llmchat.engines.gguf import GgufEngine

    files = request.getfixturevalue("smol_gguf"), request.getfixturevalue("smol_facts")
    yield Case(GgufEngine(*files, context=1024, device="cpu"), special="<|im_end|>")


def openai(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Text to /v1/completions of a server with a tiny model."""
    with serving(engine_app(transformers_engine(request))) as (url, _):
        yield Case(connected(url, chat=False), special="<|im_end|>", own_cache=False)


def openai_chat(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Messages to /v1/chat/completions of llama.cpp's own server with the real small model."""
    url = request.getfixturevalue("llama_server")
    yield Case(connected(url, chat=True), special="<|im_end|>", own_cache=False)


def connected(url: str, *, chat: bool) -> OpenAIEngine:
    connection = Connection(url)
    return OpenAIEngine(connection, find_served(connection, (), only=True), chat=chat)


def background(request: pytest.FixtureRequest) -> Iterator[Case]:
    """A tiny model in the background server of the user."""
    world = request.getfixturevalue("serving_world")
    model = {"model": str(request.getfixturevalue("tiny")), "weights": "fp32", "device": "cpu"}
    opened = open_in_background(world, model)
    assert opened, "the server can serve this model"
    yield Case(opened.engine, special="<|im_end|>", own_cache=False, structures=True)


ENGINES: dict[str, Build] = {
    "scripted": scripted,
    "loading": loading,
    "single slot": single_slot,
    "transformers": transformers,
    "gguf": gguf,
    "openai, text": openai,
    "openai, chat": openai_chat,
    "background": background,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def serving_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose background server runs."""
    home = tmp_path_factory.mktemp("home")
    folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("STATE", "CACHE")}
    world = make_world(home, OMP_NUM_THREADS="1", **folders)
    world = replace(world, state=home / "state" / "llmchat", cache=home / "cache" / "llmchat")
    process.start(world, ["serve", "--port", "0"])
    yield world
    process.stop(world)


@contextmanager
def built(build: Build, request: pytest.FixtureRequest) -> Iterator[Case]:
    cases = build(request)
    case = next(cases)
    yield case
    case.engine.unload()
    assert next(cases, None) is None


@pytest.fixture(scope="module", params=ENGINES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with built(ENGINES[request.param], request) as case:
        yield case


@pytest.fixture(params=ENGINES)
def case_to_unload(request: pytest.FixtureRequest) -> Iterator[Case]:
    """One that no other test uses."""
    with built(ENGINES[request.param], request) as case:
        yield case


@pytest.fixture
def engine(case: Case) -> Engine:
    return case.engine


def test_answer_ends_once_with_its_counts(engine: Engine) -> None:
    texts, finish = answer(engine, prompt())
    assert texts and finish.reason in ("stop", "length")
    assert 0 <= finish.cached_tokens < finish.prompt_tokens
    assert 1 <= finish.reply_tokens <= 24


def test_times_of_an_answer_add_up_to_no_more_than_it_took(engine: Engine) -> None:
    started = time.perf_counter()
    _, finish = answer(engine, prompt())
    took = time.perf_counter() - started
    assert finish.reply_tokens > 1
    assert finish.prefill_s > 0 and finish.decode_s > 0
    assert finish.prefill_s + finish.decode_s <= took


def test_first_token_belongs_to_the_prefill_and_the_others_to_the_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmchat.engines.scripted.time", Clock())
    _, finish = answer(ScriptedEngine(["one two three"], delay_s=0.5), prompt("hello"))
    assert (finish.prefill_s, finish.decode_s) == (0.5, 2.0)
    assert finish.tokens_per_second == 4 / finish.decode_s


class Clock:
    """A clock that only sleeping advances."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


def test_greedy_answer_is_repeatable(engine: Engine) -> None:
    assert "".join(answer(engine, prompt())[0]) == "".join(answer(engine, prompt())[0])


def test_answer_with_a_seed_is_repeatable_and_reports_the_seed(engine: Engine) -> None:
    hot = Sampling(temperature=1.5, max_tokens=16, seed=7)
    answer(engine, prompt(), hot)
    first, finish = answer(engine, prompt(), hot)
    assert finish.seed == 7 and answer(engine, prompt(), hot)[0] == first


def test_seeds_change_the_answer_and_each_answer_draws_its_own(case: Case) -> None:
    if not case.draws:
        pytest.skip("its answers do not depend on the seed")
    hot = Sampling(temperature=1.5, max_tokens=16)
    seeded = [answer(case.engine, prompt(), replace(hot, seed=seed))[0] for seed in range(7, 11)]
    assert len(set(map("".join, seeded))) > 1
    seeds = {answer(case.engine, prompt(), hot)[1].seed for _ in range(2)}
    assert len(seeds) == 2


def test_token_counts_equal_those_of_the_answer(engine: Engine) -> None:
    for text in (STORY, "日本語 and 🦊", "a\n\n  b"):
        asked = prompt(text)
        _, finish = answer(engine, asked, Sampling(temperature=0, max_tokens=1))
        assert len(engine.encode(asked)) == finish.prompt_tokens
    assert engine.count("") == 0 < engine.count("fox") < engine.count("fox " * 20)


def test_stop_string_is_never_shown_wherever_the_pieces_are_cut(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    # A server may apply stop strings itself, and not tell which one it was.
    untold = {""} if isinstance(engine, OpenAIEngine) else set()
    for start, end in ((3, 4), (2, 9), (5, 14)):
        stop = text[start:end]
        for asked, sampling in (
            (prompt(), Sampling(temperature=0, max_tokens=24, stops=(stop, "never said"))),
            (prompt(stops=("never said", stop)), GREEDY),
        ):
            texts, finish = answer(engine, asked, sampling)
            assert "".join(texts) == text[: text.index(stop)] and finish.reason == "stop"
            assert finish.stop in {stop} | untold


def test_text_that_only_begins_like_a_stop_string_is_shown(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    texts, _ = answer(engine, prompt(stops=(f"{text[-3:]}\x00",)))
    assert "".join(texts) == text


def test_answer_that_begins_with_a_stop_string_is_empty(engine: Engine) -> None:
    text = "".join(answer(engine, prompt())[0])
    texts, finish = answer(engine, prompt(stops=(text[0],)))
    assert texts == [] and finish.reason == "stop"


def test_answer_has_at_most_max_tokens(engine: Engine) -> None:
    for most in (1, 3):
        _, finish = answer(engine, prompt(), Sampling(temperature=0, max_tokens=most))
        assert (finish.reason, finish.reply_tokens) == ("length", most)


def test_closing_an_answer_early_leaves_the_engine_usable(engine: Engine) -> None:
    expected = "".join(answer(engine, prompt())[0])
    for steps in (0, 1, 2):
        stream = engine.stream(prompt(), Sampling(temperature=0, max_tokens=200))
        for _ in range(steps):
            next(stream)
        stream.close()
    assert "".join(answer(engine, prompt())[0]) == expected


def test_prompt_that_is_too_long_raises_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(ContextOverflow, match=f"{engine.context:,}"):
        answer(engine, prompt("fox and dog " * engine.context))
    assert answer(engine, prompt())[1].reply_tokens > 0


def test_special_token_in_a_message_is_text(case: Case) -> None:
    if not case.special:
        pytest.skip("it has no special tokens")
    engine, text = case.engine, f"a{case.special}b"
    alone = len(engine.encode(prompt("ab")))
    assert len(engine.encode(prompt(text))) > alone + 1, "it is more than one token"
    assert answer(engine, prompt(text))[1].prompt_tokens > alone + 1


def test_describes_itself_in_one_line(engine: Engine) -> None:
    assert engine.describe().strip() and "\n" not in engine.describe()
    assert engine.context > 0


def test_cleared_cache_is_read_again_from_the_start(case: Case) -> None:
    expected, _ = answer(case.engine, prompt())
    if case.own_cache:
        assert answer(case.engine, prompt())[1].cached_tokens > 0
    for _ in range(2):
        case.engine.clear_cache()
        case.engine.clear_cache()
        again, finish = answer(case.engine, prompt())
        assert "".join(again) == "".join(expected)
        assert not case.own_cache or finish.cached_tokens == 0


def test_what_is_read_after_the_cache_was_cleared_is_cached_again(case: Case) -> None:
    if not case.own_cache:
        pytest.skip("the server decides what it keeps")
    case.engine.clear_cache()
    answer(case.engine, prompt())
    assert answer(case.engine, prompt())[1].cached_tokens > 0


def test_unloaded_engine_has_a_name_and_answers_nothing(case_to_unload: Case) -> None:
    engine = case_to_unload.engine
    assert answer(engine, prompt())[1].reply_tokens > 0
    for _ in range(2):
        engine.unload()
        assert engine.describe().strip()
        with pytest.raises(Unloaded):
            engine.count("fox")
        with pytest.raises(Unloaded):
            engine.encode(prompt())
        with pytest.raises(Unloaded):
            answer(engine, prompt())
        engine.clear_cache()


def test_a_structure_is_enforced(case: Case) -> None:
    if not case.structures:
        pytest.skip("it has its own tests, or chooses no tokens")
    hot = Sampling(temperature=5, max_tokens=24, structure=from_choices(["the red fox", "a dog"]))
    found = {
        "".join(answer(case.engine, prompt(), replace(hot, seed=seed))[0]) for seed in range(8)
    }
    assert found == {"the red fox", "a dog"}


def test_the_budget_of_a_thought_is_enforced(case: Case) -> None:
    if not case.structures:
        pytest.skip("it has its own tests, or chooses no tokens")
    marks = ThinkingMarks("<think>", "</think>", inside=True)
    hot = Sampling(temperature=5, max_tokens=40, think_budget=4, seed=1)
    assert "</think>" in "".join(answer(case.engine, prompt(thinking=marks), hot)[0])
