"""The KV cache of a session on disk, and adapters that are switched without reloading."""

import os
from pathlib import Path

import pytest
from support.checkpoints import save_adapter, save_tiny, tiny_config
from support.worlds import make_world

from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.engines import Chunk, Sampling
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.history import History
from llmchat.models import saved_kv
from llmchat.models.opener import ModelOpener
from llmchat.settings import World
from llmchat.ui.state import ReplState

GREEDY = Sampling(temperature=0, max_tokens=24)
LONG = "the quick brown fox jumps over the lazy dog, and the answer is here. " * 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), tiny_config(max_position_embeddings=1024))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def chat(base: Path, world: World, session: str | None = None, **flags: object) -> Chat:
    opener = ModelOpener(
        world, {"model": str(base), "weights": "fp32", "device": "cpu", **flags}, session
    )
    opened = opener.open()
    return Chat(
        opened.preset, opened.engine, History(world.history_file), GREEDY, session, opened.made_by
    )


def say(state: Chat, text: str) -> str:
    return "".join(event.text for event in state.send(text) if isinstance(event, Chunk))


def kept(world: World) -> list[Path]:
    return sorted((world.cache / "kv").glob("*"))


def test_a_continued_session_reads_only_the_new_question(base: Path, world: World) -> None:
    first = chat(base, world)
    say(first, LONG)
    saved_kv.keep(first.engine, first.session, first.made_by, world)
    (path,) = kept(world)
    assert path.stat().st_mode & 0o777 == 0o600 and path.name == f"{first.session}.safetensors"

    second = chat(base, world, first.session)
    answer = say(second, "and the question")
    assert second.finish and second.finish.cached_tokens > 100
    saved_kv.forget(first.session or "", world)
    assert kept(world) == []
    third = chat(base, world, first.session)
    third.undo()
    assert (
        say(third, "and the question") == answer
        and third.finish
        and third.finish.cached_tokens == 0
    )


@pytest.mark.parametrize("harm", ["other weights", "another adapter", "cut short", "empty"])
def test_what_does_not_fit_is_read_again(
    harm: str, base: Path, world: World, tmp_path: Path
) -> None:
    first = chat(base, world)
    say(first, LONG)
    saved_kv.keep(first.engine, first.session, first.made_by, world)
    (path,) = kept(world)
    flags: dict[str, object] = {}
    if harm == "other weights":
        flags = {"weights": "bf16"}
    elif harm == "another adapter":
        flags = {"adapter": str(save_adapter(tmp_path / "lora", base))}
    else:
        os.truncate(path, path.stat().st_size // 2 if harm == "cut short" else 0)
    second = chat(base, world, first.session, **flags)
    say(second, "and the question")
    assert second.finish and second.finish.cached_tokens == 0 and second.finish.reply_tokens


def test_short_and_unsaved_chats_leave_nothing(base: Path, world: World) -> None:
    state = chat(base, world)
    say(state, "the fox")
    saved_kv.keep(state.engine, state.session, state.made_by, world)
    say(state, LONG)
    saved_kv.keep(state.engine, None, state.made_by, world)
    saved_kv.keep(
        LoadingEngine(lambda: state.engine, "not loaded"), state.session, state.made_by, world
    )
    assert kept(world) == []


def test_the_oldest_go_when_all_are_too_large(
    base: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = chat(base, world)
    say(state, LONG)
    saved_kv.keep(state.engine, "first", state.made_by, world)
    size = kept(world)[0].stat().st_size
    os.utime(kept(world)[0], (1, 1))
    monkeypatch.setattr(saved_kv, "LIMIT", int(1.5 * size))
    saved_kv.keep(state.engine, "second", state.made_by, world)
    assert [path.stem for path in kept(world)] == ["second"]


def test_an_adapter_is_switched_without_loading_the_weights(
    base: Path, world: World, tmp_path: Path
) -> None:
    adapter, other = (
        str(save_adapter(tmp_path / name, base, seed=seed))
        for seed, name in enumerate(("first", "second"), 1)
    )
    opener = ModelOpener(world, {"model": str(base), "weights": "fp32", "device": "cpu"})
    opened = opener.open_later()
    state = ReplState(
        Chat(opened.preset, opened.engine, History(None), GREEDY, made_by=opened.made_by),
        world,
        opener,
        Documents(world),
    )
    plain = say(state.chat, LONG)
    engine = state.chat.engine

    def switched(name: str) -> str:
        state.switch(adapter=name)
        state.chat.restart()
        assert state.chat.engine is engine, "nothing was loaded again"
        return say(state.chat, LONG)

    for name in (adapter, f"{other}:0.5", adapter):
        fresh = chat(base, world, adapter=name)
        assert switched(name) == say(fresh, LONG) != plain
        assert (
            state.chat.made_by == fresh.made_by and Path(name).name in state.chat.engine.describe()
        )
    assert switched("none") == plain and state.chat.engine.describe().count("+") == 0


def test_an_adapter_that_cannot_be_live_is_loaded(base: Path, world: World, tmp_path: Path) -> None:
    dora = str(save_adapter(tmp_path / "dora", base, use_dora=True))
    opener = ModelOpener(world, {"model": str(base), "weights": "fp32", "device": "cpu"})
    opened = opener.open()
    state = ReplState(
        Chat(opened.preset, opened.engine, History(None), GREEDY, made_by=opened.made_by),
        world,
        opener,
        Documents(world),
    )
    engine = state.chat.engine
    state.switch(adapter=dora)
    assert state.chat.engine is not engine and say(state.chat, LONG) == say(
        chat(base, world, adapter=dora), LONG
    )


def test_a_merged_adapter_is_taken_out_live(base: Path, world: World, tmp_path: Path) -> None:
    adapter = str(save_adapter(tmp_path / "lora", base))
    opener = ModelOpener(
        world, {"model": str(base), "adapter": adapter, "weights": "fp32", "device": "cpu"}
    )
    opened = opener.open()
    state = ReplState(
        Chat(opened.preset, opened.engine, History(None), GREEDY, made_by=opened.made_by),
        world,
        opener,
        Documents(world),
    )
    merged = say(state.chat, LONG)
    state.switch(adapter="none")
    state.chat.restart()
    assert state.chat.engine is opened.engine
    assert say(state.chat, LONG) == say(chat(base, world), LONG) != merged
