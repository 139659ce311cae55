"""Draft models by name: in options, presets and sessions, for a chat and for a server."""

import io
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_config
from support.compiled_models import needs_compiler
from support.worlds import make_world

from llmchat.cli import main
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import Mismatch, NotPulled
from llmchat.models.drafting import draft_of
from llmchat.models.loading import load
from llmchat.models.locate import Model, locate
from llmchat.presets import preset_for, reopen_options
from llmchat.server.spec_builder import SpecBuilder
from llmchat.settings import Options, World


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A large model and a small one."""
    large, small = (tmp_path_factory.mktemp(name) for name in ("large", "small"))
    save_tiny(large, tiny_config(num_hidden_layers=3))
    save_tiny(small, tiny_config(num_hidden_layers=1), seed=1)
    return str(large), str(small)


def located(world: World, **options: Any) -> Model:
    return locate(preset_for(Options(**options), world.own_presets), world)


def test_a_draft_is_named_by_an_option_or_a_preset(world: World, folders: Any) -> None:
    large, small = folders
    world.own_presets.mkdir(parents=True)
    table = f'format = "chatml"\ndraft = "{small}"\n[base]\nkind = "path"\nrepo = "{large}"\n'
    (world.own_presets / "mine.toml").write_text(table)
    model = located(world, model=large, draft=small)
    found = draft_of(model)
    assert found and found.base and found.base.path == Path(small)
    assert found.preset.format.template == model.preset.format.template
    assert draft_of(located(world, model=large)) is None
    assert draft_of(located(world, model="mine"))
    assert draft_of(located(world, model="mine", draft="none")) is None


def test_a_draft_that_is_not_there_is_named(world: World, folders: Any) -> None:
    world.own_presets.mkdir(parents=True)
    table = 'format = "chatml"\nengine = "openai"\n[base]\nkind = "served"\nrepo = "m"\n'
    (world.own_presets / "served.toml").write_text(table)
    with pytest.raises(NotPulled, match="`smollm2-360m` is not pulled") as refused:
        draft_of(located(world, model=folders[0], draft="smollm2-360m"))
    assert "llmchat pull smollm2-360m" in refused.value.hint
    with pytest.raises(Mismatch, match="served cannot draft: the engine `openai` runs it"):
        draft_of(located(world, model=folders[0], draft="served"))


def test_a_session_keeps_its_draft(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(folders[1]).parent)
    name = f"./{Path(folders[1]).name}"
    kept = reopen_options(Options(model=folders[0], draft=name))
    assert kept["draft"] == folders[1]


def test_a_server_counts_the_memory_of_a_draft(world: World, folders: Any) -> None:
    large, small = folders
    builder = SpecBuilder(world, 2)
    plain, drafted = (
        builder.build(preset_for(options), options)
        for options in (Options(model=large), Options(model=large, draft=small))
    )
    assert drafted.size > plain.size and drafted.key != plain.key


def test_serve_needs_the_models_that_are_drafted_for(tmp_path: Path) -> None:
    told = io.StringIO()
    world = replace(make_world(tmp_path), stderr=told)
    assert main(["serve", "--draft", "smollm2"], world) == 2
    assert "--draft requires -m" in told.getvalue()


@pytest.mark.skipif(*needs_compiler[1].args, **needs_compiler[1].kwargs)
def test_an_engine_says_what_drafts_for_it(world: World, folders: Any) -> None:
    large, small = folders
    engine = load(located(world, model=large, draft=small), Options(device="cpu"))
    assert isinstance(engine, TransformersEngine) and engine.draft
    assert engine.describe().endswith(f"cpu, drafts by {Path(small).name}")
    engine.draft.proposed, engine.draft.right = 8, 6
    assert engine.describe().endswith("(75% kept)")
    engine.unload()
