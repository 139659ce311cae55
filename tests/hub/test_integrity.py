"""Files of the right size with wrong bytes are detected, never loaded, and downloaded again."""

import json
import os
from pathlib import Path

import pytest
from support.loopback_hub import Hub, etag_of
from support.worlds import MakeWorld

from llmchat.errors import IntegrityError
from llmchat.hub import Checkpoint, CopyRecipe, find_copy, find_intact, make_copy, pull, verify
from llmchat.models import pulling
from llmchat.models.locate import locate
from llmchat.output.progress import NoProgress
from llmchat.presets import Source, find
from llmchat.settings import World

BASE = Source("hub", "org/base")


def rot(path: Path, *, unseen: bool = False) -> None:
    """Turn one bit of a file. unseen: as a disk does it, without a new time of change."""
    path = path.resolve()
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(
        path, ns=(before.st_atime_ns, before.st_mtime_ns if unseen else before.st_mtime_ns + 10**9)
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_file_is_read_again_before_use_and_refused(
    name: str, hub: Hub, at: MakeWorld
) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    assert find_intact(BASE, at()).path == folder
    rot(folder / name)
    with pytest.raises(IntegrityError, match=f"{name} is damaged") as refused:
        locate(find("org/base"), at())
    assert refused.value.hint == "`llmchat pull org/base` fetches it again"


def test_the_hint_names_the_revision(hub: Hub, at: MakeWorld) -> None:
    source = Source("hub", "org/base", "v1")
    rot(pull(source, at(), NoProgress()).checkpoint.path / "config.json")
    with pytest.raises(IntegrityError) as refused:
        verify(source, at())
    assert refused.value.hint == "`llmchat pull org/base --revision v1` fetches it again"


@pytest.mark.parametrize("unseen", [False, True])
def test_pull_fetches_what_verify_found_and_nothing_else(
    unseen: bool, hub: Hub, at: MakeWorld, files: dict[str, bytes]
) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    rot(folder / "model.safetensors", unseen=unseen)
    with pytest.raises(IntegrityError):
        verify(BASE, at())
    planned = pulling.plan_pull(find("org/base"), at())
    assert planned.plan.download == len(files["model.safetensors"])
    hub.requests.clear()
    pulling.pull(planned, at(), NoProgress())
    assert [request.path.rpartition("/")[2] for request in hub.downloads()] == ["model.safetensors"]
    verify(BASE, at())
    assert (
        pulling.pull(pulling.plan_pull(find("org/base"), at()), at(), NoProgress())[0].downloaded
        == 0
    )


def test_rot_without_a_trace_is_found_by_force(hub: Hub, at: MakeWorld) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    rot(folder / "model.safetensors", unseen=True)
    assert pulling.plan_pull(find("org/base"), at()).plan.download == 0
    planned = pulling.plan_pull(find("org/base"), at(), thorough=True)
    assert planned.plan.download > 0
    pulling.pull(planned, at(), NoProgress())
    verify(BASE, at())


def test_a_touched_file_is_read_once(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    os.utime((folder / "model.safetensors").resolve())
    read: list[Path] = []
    from llmchat.hub import local_store

    real = local_store.sha256
    monkeypatch.setattr(local_store, "sha256", lambda path: (read.append(path), real(path))[1])
    for _ in range(3):
        find_intact(BASE, at())
    assert len(read) == 1


def test_rot_that_another_tool_left_is_not_taken_for_the_file(
    hub: Hub, at: MakeWorld, tmp_path: Path, files: dict[str, bytes]
) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--org--base" / "blobs"
    blobs.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (blobs / etag_of(name, files[name])).write_bytes(bytes(len(files[name])))
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_receipt_of_an_earlier_release_that_hashed_the_rot_is_not_believed(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    import hashlib

    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    rot(folder / "config.json")
    (receipt,) = (tmp_path / "home" / "cache" / "receipts").glob("*.json")
    table = json.loads(receipt.read_text())
    del table["damaged"]
    for name, fact in table["files"].items():
        content = (folder / name).read_bytes()
        table["files"][name] = {"size": fact["size"], "sha256": hashlib.sha256(content).hexdigest()}
    receipt.write_text(json.dumps(table))
    with pytest.raises(IntegrityError, match=r"config\.json is damaged"):
        find_intact(BASE, at())


def test_offline_a_damaged_model_is_refused(hub: Hub, at: MakeWorld) -> None:
    rot(pull(BASE, at(), NoProgress()).checkpoint.path / "config.json")
    with pytest.raises(IntegrityError, match="offline mode is on"):
        pull(BASE, at(HF_HUB_OFFLINE="1"), NoProgress())


class Written:
    size = 8

    def write(self, folder: Path, advance: object) -> None:
        (folder / "model.safetensors").write_bytes(b"x" * 8)


def copy_of(checkpoint: Checkpoint, world: World) -> Path:
    return make_copy(CopyRecipe.of(checkpoint), checkpoint, Written, world, NoProgress())


def test_copies_that_may_be_made_of_rot_go_when_it_is_found(hub: Hub, at: MakeWorld) -> None:
    base = pull(BASE, at(), NoProgress()).checkpoint
    copy = copy_of(base, at())
    rot(base.path / "model.safetensors", unseen=True)
    with pytest.raises(IntegrityError):
        verify(BASE, at())
    assert not copy.exists()
    copy = copy_of(base, at())
    pull(BASE, at(), NoProgress())
    assert not copy.exists()


def test_a_copy_that_has_rotted_is_not_opened(hub: Hub, at: MakeWorld) -> None:
    base = pull(BASE, at(), NoProgress()).checkpoint
    copy = copy_of(base, at())
    recipe = CopyRecipe.of(base)
    os.utime(copy / "model.safetensors")
    assert find_copy(recipe, at()) == copy == find_copy(recipe, at())
    rot(copy / "model.safetensors")
    assert find_copy(recipe, at()) is None
