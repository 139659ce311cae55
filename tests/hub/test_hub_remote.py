"""Pulls from a Hub on loopback: what arrives, what is fetched again, and what each fault says."""

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import save_adapter, save_tiny
from support.loopback_hub import Hub, Repo, serving
from support.worlds import MakeWorld, make_world

from llmchat.errors import (
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NetworkError,
    NotAuthorised,
    OutOfResources,
)
from llmchat.hub import find, pull, remove, verify
from llmchat.output.progress import NoProgress
from llmchat.presets import Source
from llmchat.settings import World

pytestmark = pytest.mark.usefixtures("no_waiting")
BASE, ADAPTER = Source("hub", "org/base"), Source("hub", "org/adapter")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture
def hub(base: Path, adapter: Path) -> Iterator[Hub]:
    extra = {"modeling_evil.py": b"raise SystemExit", "model.onnx": b"x", "README.md": b"# a model"}
    repo = Repo.of_folder(base)
    repo.files |= extra
    with serving(Hub({"org/base": repo, "org/adapter": Repo.of_folder(adapter)})) as hub:
        yield hub


def test_a_checkpoint_arrives_whole_and_without_code(hub: Hub, at: MakeWorld, base: Path) -> None:
    pulled = pull(BASE, at(), NoProgress())
    folder = pulled.checkpoint.path
    assert pulled.downloaded == hub.sent == sum(path.stat().st_size for path in folder.iterdir())
    assert pulled.checkpoint.revision == "a" * 40 and pulled.checkpoint == find(BASE, at())
    assert (folder / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json"} <= names and not any(
        name.endswith((".py", ".onnx", ".md")) for name in names
    )


def test_the_shared_cache_is_one_that_other_tools_can_read(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    from huggingface_hub import try_to_load_from_cache

    pull(BASE, at(), NoProgress())
    assert Path(
        str(try_to_load_from_cache("org/base", "config.json", cache_dir=tmp_path / "hf" / "hub"))
    ).exists()


def test_what_another_tool_has_downloaded_is_not_fetched_again(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    for name in hub.repos["org/base"].files:
        hf_hub_download("org/base", name, cache_dir=tmp_path / "hf" / "hub", endpoint=hub.url)
    before = hub.sent
    assert pull(BASE, at(), NoProgress()).downloaded == 0 and hub.sent == before


def test_pulling_again_fetches_nothing(hub: Hub, at: MakeWorld) -> None:
    first = pull(BASE, at(), NoProgress())
    hub.requests.clear()
    again = pull(BASE, at(), NoProgress())
    assert again.checkpoint == first.checkpoint and again.downloaded == 0
    assert len(hub.requests) == 1, "one question whether the branch has moved"
    pinned = Source("hub", "org/base", "a" * 40)
    pull(pinned, at(), NoProgress())
    hub.requests.clear()
    assert pull(pinned, at(), NoProgress()).downloaded == 0 and not hub.requests, (
        "a commit cannot move"
    )


def test_a_branch_that_has_moved_is_followed(hub: Hub, at: MakeWorld) -> None:
    pull(BASE, at(), NoProgress())
    hub.repos["org/base"].commit = "b" * 40
    hub.repos["org/base"].files["generation_config.json"] = b'{"eos_token_id": 9}'
    before = hub.sent
    pulled = pull(BASE, at(), NoProgress())
    assert pulled.checkpoint.revision == "b" * 40 and hub.sent - before == len(
        b'{"eos_token_id": 9}'
    ), "only what is new"


def test_an_adapter_arrives_without_the_rest(hub: Hub, at: MakeWorld) -> None:
    folder = pull(ADAPTER, at(), NoProgress()).checkpoint.path
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_only_pickles_are_converted_once(
    hub: Hub, at: MakeWorld, base: Path, adapter: Path, tmp_path: Path
) -> None:
    for repo, stem, folder in (
        ("org/base", "pytorch_model", base),
        ("org/adapter", "adapter_model", adapter),
    ):
        files = hub.repos[repo].files
        name = next(name for name in files if name.endswith(".safetensors"))
        torch.save(load_file(folder / name), tmp_path / "x.bin")
        del files[name]
        files[f"{stem}.bin"] = (tmp_path / "x.bin").read_bytes()
    for source, original in (
        (BASE, base / "model.safetensors"),
        (ADAPTER, adapter / "adapter_model.safetensors"),
    ):
        pulled = pull(source, at(), NoProgress())
        assert any("converted to safetensors" in note for note in pulled.notes)
        ours, theirs = load_file(pulled.checkpoint.path / original.name), load_file(original)
        assert ours.keys() == theirs.keys() and all(
            torch.equal(ours[key], theirs[key]) for key in ours
        )
        assert pull(source, at(), NoProgress()).downloaded == 0
    assert (find(BASE, at()).path / "tokenizer.json").exists()


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/tmp/llmchat-evil").touch, ())


def test_a_pickle_that_would_run_code_is_refused(hub: Hub, at: MakeWorld) -> None:
    files = hub.repos["org/base"].files
    del files["model.safetensors"]
    files["pytorch_model.bin"] = pickle.dumps({"weight": Evil()})
    Path("/tmp/llmchat-evil").unlink(missing_ok=True)
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
        pull(BASE, at(), NoProgress())
    assert not Path("/tmp/llmchat-evil").exists()
    with pytest.raises(ModelNotFound):
        find(BASE, at())


@pytest.mark.parametrize("cuts", [[50_000], [1, 20_000, 30_000], [0, 0, 10_500]])
def test_a_cut_connection_is_resumed_where_it_was_cut(
    hub: Hub, at: MakeWorld, cuts: list[int]
) -> None:
    hub.cut_after = list(cuts)
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    assert verify(BASE, at()).path == folder and not hub.cut_after
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size == hub.sent, "no byte was sent twice"
    starts = [
        int(request.range.removeprefix("bytes=").rstrip("-"))
        for request in hub.downloads()
        if request.range
    ]
    assert starts[-1] == sum(cuts)


def test_a_pull_that_gave_up_goes_on_where_it_stopped(hub: Hub, at: MakeWorld) -> None:
    hub.cut_after = [40_000, *[0] * 20]
    with pytest.raises(NetworkError) as stopped:
        pull(BASE, at(), NoProgress())
    assert "continues where it stopped" in stopped.value.hint
    with pytest.raises(ModelNotFound):
        find(BASE, at())
    hub.cut_after = []
    hub.requests.clear()
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    weights = [request.range for request in hub.downloads() if "model.safetensors" in request.path]
    assert weights == ["bytes=40000-"] and verify(BASE, at()).path == folder, (
        "only what is missing is fetched"
    )


def test_wrong_bytes_are_thrown_away(hub: Hub, at: MakeWorld) -> None:
    hub.wrong_bytes = True
    with pytest.raises(IntegrityError, match="arrived damaged and was discarded"):
        pull(BASE, at(), NoProgress())
    with pytest.raises(ModelNotFound):
        find(BASE, at())
    hub.wrong_bytes = False
    assert pull(BASE, at(), NoProgress()).downloaded > 0


FAULTS = {
    "gated": (
        lambda hub: setattr(hub.repos["org/base"], "gated", True),
        NotAuthorised,
        "org/base is gated",
    ),
    "private": (
        lambda hub: setattr(hub.repos["org/base"], "private", True),
        NotAuthorised,
        "private, or does not exist",
    ),
    "no such repo": (
        lambda hub: hub.repos.pop("org/base"),
        NotAuthorised,
        "private, or does not exist",
    ),
    "500": (
        lambda hub: hub.fail_with.update({"/api/": 500}),
        NetworkError,
        "answers with HTTP 500",
    ),
    "503 on a file": (
        lambda hub: hub.fail_with.update({"/resolve/": 503}),
        NetworkError,
        "answers with HTTP 503",
    ),
    "429": (
        lambda hub: hub.fail_with.update({"/api/": 429}),
        NetworkError,
        "answers with HTTP 429",
    ),
    "403": (lambda hub: hub.fail_with.update({"/resolve/": 403}), NotAuthorised, "refuses access"),
    "404 on a file": (
        lambda hub: hub.fail_with.update({"model.safetensors": 404}),
        ModelNotFound,
        "is incomplete",
    ),
    "no weights": (
        lambda hub: hub.repos["org/base"].files.pop("model.safetensors"),
        Mismatch,
        "no weights in a supported format",
    ),
    "a name outside the folder": (
        lambda hub: hub.repos["org/base"].files.update({"../../evil.json": b"{}"}),
        IntegrityError,
        "outside its folder",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_clear_line_and_leaves_nothing_that_opens(
    name: str, hub: Hub, at: MakeWorld
) -> None:
    break_it, kind, line = FAULTS[name]
    break_it(hub)
    with pytest.raises(LlmchatError) as failed:
        pull(BASE, at(), NoProgress())
    assert (
        type(failed.value) is kind
        and line in failed.value.message
        and "\n" not in failed.value.message
    )
    with pytest.raises(ModelNotFound):
        find(BASE, at())


def test_a_gated_repo_names_the_page_and_opens_with_a_token(hub: Hub, at: MakeWorld) -> None:
    hub.repos["org/base"].gated = True
    with pytest.raises(NotAuthorised) as refused:
        pull(BASE, at(HF_TOKEN="hf_wrong_token"), NoProgress())
    assert f"{hub.url}/org/base" in refused.value.hint and "hf auth login" in refused.value.hint
    assert "hf_wrong_token" not in f"{refused.value.message} {refused.value.hint}"
    assert pull(BASE, at(HF_TOKEN=hub.token), NoProgress()).downloaded > 0
    assert {request.token for request in hub.downloads()} == {hub.token}


def test_a_stored_token_is_used(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    hub.repos["org/base"].private = True
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(hub.token + "\n")
    assert pull(BASE, at(), NoProgress()).downloaded > 0


def test_an_unknown_revision(hub: Hub, at: MakeWorld) -> None:
    with pytest.raises(ModelNotFound, match="org/base has no revision `v9`"):
        pull(Source("hub", "org/base", "v9"), at(), NoProgress())


def test_without_a_network(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    away: World = make_world(
        tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf")
    )
    with pytest.raises(NetworkError, match="cannot be reached"):
        pull(BASE, away, NoProgress())
    first = pull(BASE, at(), NoProgress())
    again = pull(BASE, away, NoProgress())
    assert again.checkpoint == first.checkpoint and "not checked for updates" in again.notes[0]


def test_offline_mode_asks_nobody(hub: Hub, at: MakeWorld) -> None:
    with pytest.raises(
        NetworkError, match="offline mode is on, and org/base is not on this machine"
    ):
        pull(BASE, at(HF_HUB_OFFLINE="1"), NoProgress())
    pull(BASE, at(), NoProgress())
    hub.requests.clear()
    assert pull(BASE, at(HF_HUB_OFFLINE="yes"), NoProgress()).downloaded == 0 and not hub.requests


def test_a_full_disk_is_seen_before_a_byte_is_fetched(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutOfResources, match=r"kB are needed, 1\.0 kB are free"):
        pull(BASE, at(), NoProgress())
    assert hub.sent == 0


def test_verify_finds_a_flipped_byte_and_a_lost_file(hub: Hub, at: MakeWorld) -> None:
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    weights = (folder / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors is damaged"):
        verify(BASE, at())
    weights.unlink()
    with pytest.raises(ModelNotFound):
        find(BASE, at())


def test_two_pulls_at_once_fetch_once(hub: Hub, at: MakeWorld) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: pull(BASE, at(), NoProgress()), range(2))
    assert (
        first.checkpoint == second.checkpoint
        and sorted((first.downloaded, second.downloaded))[0] == 0
    )
    assert hub.sent == first.downloaded + second.downloaded


def test_remove_frees_the_disk(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    pulled = pull(BASE, at(), NoProgress())
    assert remove(BASE, at()) == pulled.downloaded + len("a" * 40)
    with pytest.raises(ModelNotFound):
        find(BASE, at())
    assert not list((tmp_path / "hf" / "hub").rglob("*.safetensors"))


def test_two_adapters_of_one_base_are_two_receipts(hub: Hub, at: MakeWorld) -> None:
    config = json.loads(hub.repos["org/adapter"].files["adapter_config.json"])
    hub.repos["org/second"] = Repo(
        {
            **hub.repos["org/adapter"].files,
            "adapter_config.json": json.dumps(config | {"lora_alpha": 32}).encode(),
        },
        commit="c" * 40,
    )
    first, second = (
        pull(source, at(), NoProgress()).checkpoint
        for source in (ADAPTER, Source("hub", "org/second"))
    )
    assert (
        first.path != second.path
        and remove(ADAPTER, at()) > 0
        and find(Source("hub", "org/second"), at()) == second
    )


def test_one_copy_of_the_weights_is_fetched(hub: Hub, at: MakeWorld) -> None:
    files = hub.repos["org/base"].files
    weights = files["model.safetensors"]
    files |= {
        "model.fp16.safetensors": weights,
        "pytorch_model.bin": weights,
        "consolidated.safetensors": weights,
    }
    names = {path.name for path in pull(BASE, at(), NoProgress()).checkpoint.path.iterdir()}
    assert {name for name in names if name.endswith((".safetensors", ".bin"))} == {
        "model.safetensors"
    }


def test_a_beginning_that_is_not_this_files_is_fetched_anew(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    hub.cut_after = [40_000, *[0] * 20]
    with pytest.raises(NetworkError):
        pull(BASE, at(), NoProgress())
    (partial,) = (
        path
        for path in (tmp_path / "hf").rglob("*.llmchat.incomplete")
        if path.stat().st_size == 40_000
    )
    partial.write_bytes(bytes(40_000))
    hub.cut_after = []
    assert pull(BASE, at(), NoProgress()).downloaded > 400_000
    verify(BASE, at())


def test_files_come_side_by_side_four_at_most(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from llmchat.hub import download

    run, lock, running = download._Download.run, threading.Lock(), [0, 0]
    # Eight files: two rounds of four that wait for each other. Fewer at a time would wait for ever.
    meeting = threading.Barrier(download.PARALLEL, timeout=20)

    def counted(self: download._Download) -> int:
        with lock:
            running[0] += 1
            running[1] = max(running)
        meeting.wait()
        with lock:
            running[0] -= 1
        return run(self)

    monkeypatch.setattr(download._Download, "run", counted)
    files = hub.repos["org/base"].files
    files |= {f"tokenizer_{number}.json": b"{%d}" % number for number in range(8 - len(files) + 3)}
    folder = pull(BASE, at(), NoProgress()).checkpoint.path
    assert len(list(folder.iterdir())) == 8 and running[1] == download.PARALLEL
