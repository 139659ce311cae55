"""File systems without symbolic links or locks; files of other tools in the shared cache stay."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.loopback_hub import Hub
from support.worlds import MakeWorld

from llmchat.errors import OutOfResources
from llmchat.hub import find, locks, pull, verify
from llmchat.output.progress import NoProgress
from llmchat.presets import Source

BASE = Source("hub", "org/base")


def refuse(number: int) -> Any:
    def call(*arguments: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=[False, True], ids=["hard links", "neither"])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT, SMB and some FUSE file systems."""
    monkeypatch.setattr(os, "symlink", refuse(errno.EPERM))
    if request.param:
        monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))


@pytest.mark.usefixtures("no_links")
def test_without_symbolic_links_a_pull_is_whole_and_is_not_repeated(
    hub: Hub, at: MakeWorld, files: dict[str, bytes]
) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files and not any(
        path.is_symlink() for path in folder.iterdir()
    )
    assert pull(BASE, at(), NoProgress()).downloaded == 0 and verify(BASE, at()) == find(BASE, at())


@pytest.mark.usefixtures("no_links")
def test_without_symbolic_links_a_new_commit_fetches_what_is_new(hub: Hub, at: MakeWorld) -> None:
    pull(BASE, at(), NoProgress())
    hub.repos["org/base"].commit = "b" * 40
    hub.repos["org/base"].files["generation_config.json"] = b'{"eos_token_id": 9}'
    assert pull(BASE, at(), NoProgress()).downloaded == len(b'{"eos_token_id": 9}')


@pytest.mark.usefixtures("no_links")
def test_a_file_that_another_tool_wrote_in_place_stays(
    hub: Hub, at: MakeWorld, tmp_path: Path, files: dict[str, bytes]
) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--org--base" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(files["model.safetensors"])
    (snapshot / "other.txt").write_text("theirs")
    before = (snapshot / "model.safetensors").stat().st_ino
    pull(BASE, at(), NoProgress())
    assert (snapshot / "model.safetensors").stat().st_ino == before and (
        snapshot / "other.txt"
    ).read_text() == "theirs"
    assert not [
        request
        for request in hub.downloads()
        if "model.safetensors" in request.path and not request.range
    ], "it was not fetched again"


def test_a_pointer_is_replaced_at_once_or_not_at_all(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends in the middle leaves the file that was there."""
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    hub.repos["org/base"].files["config.json"] += b"\n"
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(b"theirs")
    monkeypatch.setattr(os, "replace", refuse(errno.EIO))
    monkeypatch.setattr(Path, "replace", refuse(errno.EIO))
    with pytest.raises(OSError):
        pull(BASE, at(), NoProgress())
    assert (folder / "config.json").read_bytes() == b"theirs"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_pull_goes_on_and_says_what_does_not_hold(
    number: int, hub: Hub, at: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, real = at(), fcntl.flock

    def flock(file: Any, how: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(world.cache):
            raise OSError(number, os.strerror(number))
        real(file, how)

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(fcntl, "flock", flock)
    notes: list[str] = []
    with locks.held("x", world, lambda: None, notes.append):
        assert not locks.is_free("x", world), "it holds among the processes of this machine"
    assert locks.is_free("x", world)
    assert notes == [
        f"{world.cache / 'locks'} is on a file system without locks;"
        " do not pull the same model from two machines at once"
    ]
    assert pull(BASE, world, NoProgress()).downloaded > 0


def test_a_cache_that_cannot_be_written_is_named(
    at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.EROFS))
    with (
        pytest.raises(OutOfResources, match="no lock file can be written in"),
        locks.held("x", at(), lambda: None),
    ):
        pass


def test_locks_are_not_kept_in_a_folder_of_somebody_elses(
    tmp_path: Path, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(locks, "_has_locks", lambda folder: False)
    (tmp_path / f"llmchat-locks-{os.getuid()}").symlink_to(tmp_path)
    with (
        pytest.raises(OutOfResources, match="is not private to you"),
        locks.held("x", at(), lambda: None),
    ):
        pass
