"""Model names: presets, repos, folders, live adapters; nothing else can be requested."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_
from support.checkpoints import save_adapter, save_tiny

from llmchat.memory_estimate import kv_bytes
from llmchat.models.locate import Model, locate
from llmchat.presets import find, preset_for
from llmchat.server import spec_builder
from llmchat.server.catalog import Catalog
from llmchat.server.errors import UnknownModel
from llmchat.server.loaded_model import ModelSpec
from llmchat.settings import Options, World

Make = Callable[..., Catalog]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def catalog(world: World) -> Make:
    def make(
        *models: str, adapters: dict[str, Path] | None = None, slots: int = 4, **flags: Any
    ) -> Catalog:
        return Catalog(world, flags, models, adapters or {}, slots)

    return make


def test_only_named_models_are_served(catalog: Make, tiny: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other")
    named = catalog(str(tiny))
    assert (
        named.names() == ["tiny"]
        and named.spec("tiny").preset.name == named.spec(str(tiny)).preset.name == "tiny"
    )
    assert named.spec("tiny").context > 0
    for name in (str(other), "smollm2", f"{tiny}/", ""):
        with pytest.raises(UnknownModel):
            named.spec(name)


def test_folders_with_the_same_name_are_listed_by_path(
    catalog: Make, tiny: Path, tmp_path: Path
) -> None:
    other = save_tiny(tmp_path / "tiny")
    both = catalog(str(tiny), str(other))
    assert both.names() == ["tiny", str(other)]
    assert both.spec("tiny").key != both.spec(str(other)).key


def test_requests_cannot_name_folders(
    catalog: Make, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    for name in (str(tiny), "./tiny", "tiny", "../models/tiny", "~/tiny", "tiny/.", "x.gguf"):
        with pytest.raises(UnknownModel):
            catalog().spec(name)


def test_the_error_for_a_missing_model_names_the_pull_command(catalog: Make) -> None:
    with pytest.raises(UnknownModel, match="llmchat pull alpaca-lora-7b"):
        catalog().spec("alpaca-lora-7b")
    with pytest.raises(UnknownModel, match="does not exist"):
        catalog().spec("no-such-model")
    assert catalog().names() == []


def test_adapters_share_one_engine(catalog: Make, tiny: Path, tmp_path: Path) -> None:
    one, two = save_adapter(tmp_path / "one", tiny), save_adapter(tmp_path / "two", tiny, seed=2)
    served = catalog(str(tiny), adapters={"one": one, "two": two})
    assert served.names() == ["tiny", "tiny+one", "tiny+two"]
    bare, first, both = (served.spec(f"{tiny}{suffix}") for suffix in ("", "+one", "+one:0.5+two"))
    assert bare.key == first.key == both.key
    assert (bare.adapters, first.adapters, both.adapters) == (
        (),
        (("one", 1.0),),
        (("one", 0.5), ("two", 1.0)),
    )
    assert first.folders == {"one": one} and both.folders == {"one": one, "two": two}
    with pytest.raises(UnknownModel, match="no adapter `three`; available: one, two"):
        served.spec(f"{tiny}+three")


def test_different_ways_of_loading_have_different_keys(
    catalog: Make, tiny: Path, tmp_path: Path, world: World
) -> None:
    served, twin = catalog(str(tiny)), save_tiny(tmp_path / "tiny", seed=5)

    def key(**options: Any) -> str:
        chosen = Options(**{"model": str(tiny), **options})
        return served.spec_of_preset(preset_for(chosen, world.own_presets), chosen)[1].key

    assert key() == key(temperature=0.5) == key(format="chatml") == served.spec(str(tiny)).key
    different = [
        key(),
        key(weights="fp32"),
        key(device="cpu"),
        key(model=str(twin)),
        key(adapter=str(save_adapter(tmp_path / "a", tiny))),
    ]
    assert len(set(different)) == 5, different


def test_sizes_grow_with_slots_and_weights(catalog: Make, tiny: Path) -> None:
    sizes = [
        catalog(str(tiny), slots=slots, weights=weights).spec(str(tiny)).size
        for slots, weights in ((1, "int8"), (8, "int8"), (8, "fp32"))
    ]
    assert 0 < sizes[0] < sizes[1] < sizes[2]


def test_budget_counts_the_bytes_of_the_kv_cache(catalog: Make, tiny: Path) -> None:
    full, half = (catalog(str(tiny), slots=64, kv=kv).spec(str(tiny)) for kv in ("full", "int8"))
    config = json.loads((tiny / "config.json").read_text())
    window = config["max_position_embeddings"]
    tokens = window + 63 * min(1024, window)
    saved = kv_bytes(config, tokens) - kv_bytes(config, tokens, "int8")
    assert full.size - half.size == saved > 0
    assert half.key.endswith("kv int8") and half.made_by["kv"] == "int8"
    assert "kv" not in full.made_by


def test_an_opened_model_is_found_by_its_key(catalog: Make, tiny: Path) -> None:
    served = catalog()
    with pytest.raises(UnknownModel):
        served.opened("nothing")
    preset = with_(find(str(tiny)), weights="fp32")
    key, spec = served.spec_of_preset(preset, Options())
    assert (
        served.opened(key) is spec
        and spec.preset.format.template is not None
        and spec.made_by["weights"] == "fp32"
    )


@pytest.mark.slow
def test_the_pulled_default_model_is_listed(smol_world: World) -> None:
    catalog = Catalog(smol_world, {}, (), {}, 16)
    assert (
        catalog.names() == ["smollm2"]
        and catalog.spec("smollm2-135m").key == catalog.spec("smollm2").key == "smollm2 Q4_1"
    )
    assert 500_000_000 < catalog.spec("smollm2").size < 1_500_000_000


def test_concurrent_requests_read_the_files_once(
    catalog: Make, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, located, asked = catalog(str(tiny)), [], threading.Barrier(8)

    def counted(*arguments: Any) -> Model:
        located.append(arguments)
        return locate(*arguments)

    def spec(_: int) -> ModelSpec:
        asked.wait(30)
        return served.spec(str(tiny))

    monkeypatch.setattr(spec_builder, "locate", counted)
    with ThreadPoolExecutor(8) as threads:
        specs = list(threads.map(spec, range(8)))
    assert len(located) == 1 and all(one is specs[0] for one in specs)
