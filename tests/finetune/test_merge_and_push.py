"""A full checkpoint out of base and adapter, and the way of an adapter to the Hub."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.checkpoints import save_adapter, save_tiny
from support.loopback_hub import Hub, serving
from support.worlds import make_world

from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import Mismatch, NotAuthorised, UsageError
from llmchat.finetune.card import folder_to_push
from llmchat.hub.upload import upload
from llmchat.models.merge import merge
from llmchat.presets import preset_for
from llmchat.settings import Options, World

IDS = [1, 17, 99, 42, 250]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.mark.parametrize("shard_bytes", [1 << 40, 30_000])
def test_a_merged_checkpoint_is_base_and_adapter(
    base: Path, adapter: Path, world: World, tmp_path: Path, shard_bytes: int
) -> None:
    preset = preset_for(Options(model=str(base), adapter=f"{adapter}:0.5"))
    size = merge(preset, tmp_path / "merged", world, shard_bytes)
    shards = sorted((tmp_path / "merged").glob("model*.safetensors"))
    assert size > 0 and (len(shards) > 1) == (shard_bytes == 30_000)
    with safe_open(shards[0], "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    merged = TransformersEngine(tmp_path / "merged", weights="bf16", device="cpu")
    together = TransformersEngine(base, [adapter], weights="bf16", device="cpu", adapter_scale=0.5)
    assert torch.equal(merged.logits(IDS), together.logits(IDS))
    assert not torch.equal(
        merged.logits(IDS), TransformersEngine(base, weights="bf16", device="cpu").logits(IDS)
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    assert torch.allclose(
        theirs(torch.tensor([IDS])).logits[0, -1].float(), merged.logits(IDS).float(), atol=0.15
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_nothing_to_merge(base: Path, world: World, tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="has no adapter to merge"):
        merge(preset_for(Options(model=str(base))), tmp_path / "merged", world)
    assert not (tmp_path / "merged").exists()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture
def finished(adapter: Path, tmp_path: Path) -> Path:
    """A finished run's folder."""
    folder = tmp_path / "pupil"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "adapter").symlink_to(adapter)
    run = {
        "base": "org/base", "format": "alpaca", "counts": {"trained_on": 40, "held_out": 8},
        "recipe": {
            "name": "default", "rank": 4, "alpha": 8.0, "targets": "all-linear",
            "learning_rate": 5e-4,
        },
        "trained": {"steps": 12, "curve": [[1, 2.0, None], [6, None, 1.5], [12, None, 0.25]]},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_an_adapter_goes_to_the_hub_with_a_card_and_without_its_checkpoints(
    hub: Hub, finished: Path, adapter: Path, tmp_path: Path
) -> None:
    world = make_world(
        tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), HF_TOKEN=hub.token
    )
    with folder_to_push(finished, "me/pupil") as folder:
        address = upload(folder, "me/pupil", world, private=True)
    repo = hub.repos["me/pupil"]
    assert address == f"{hub.url}/me/pupil/commit/{'d' * 40}" and repo.private
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "run.json"} <= set(
        repo.files
    )
    assert (
        repo.files["adapter_model.safetensors"]
        == (adapter / "adapter_model.safetensors").read_bytes()
    )
    assert not [name for name in repo.files if "checkpoint" in name]
    card = repo.files["README.md"].decode()
    assert (
        'base_model: "org/base"' in card
        and "0.250 at best" in card
        and "llmchat chat -m org/base --adapter me/pupil --format alpaca" in card
    )


def test_what_cannot_be_pushed(hub: Hub, finished: Path, tmp_path: Path) -> None:
    world = make_world(
        tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), HF_TOKEN="hf_wrong"
    )
    with pytest.raises(NotAuthorised), folder_to_push(finished, "me/pupil") as folder:
        upload(folder, "me/pupil", world)
    assert "me/pupil" not in hub.repos
    with pytest.raises(UsageError, match="is not a valid Hub repo"):
        upload(finished, "pupil", world)
    with pytest.raises(Mismatch, match="holds no finished run"), folder_to_push(tmp_path, "me/x"):
        pass
