"""Models of ollama and LM Studio, read where they are, from stores made here."""

import json
from pathlib import Path

import pytest
from support.ollama_store import KIND, OllamaStore
from support.random_gguf import write_tiny
from support.worlds import make_world

from llmchat.errors import IntegrityError, Mismatch, ModelNotFound
from llmchat.hub.stores import find_stored, list_stored, with_ending
from llmchat.presets import Source
from llmchat.settings import World


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaStore:
    return OllamaStore(tmp_path / ".ollama" / "models")


QWEN3 = "registry.ollama.ai/library/qwen3/4b"


def named(name: str) -> Source:
    return Source("ollama", name)


def test_a_model_of_ollama_is_its_blob_with_what_the_store_adds(
    ollama: OllamaStore, world: World
) -> None:
    ollama.add(
        QWEN3, model=b"GGUF weights", system="Be brief.\n", params={"temperature": 0.6},
        template="{{ .Prompt }}", license="\nApache License\nVersion 2.0", projector=b"eyes",
    )  # fmt: skip
    found = find_stored(named("qwen3:4b"), world)
    assert found.file.read_bytes() == b"GGUF weights" and found.size == 12
    assert (found.system, found.parameters) == ("Be brief.", {"temperature": 0.6})
    assert found.licence == "Apache License"
    assert [line.split(":")[0] for line in found.left_out] == [
        "its Go template",
        "its image encoder",
    ]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (QWEN3, "qwen3:4b"),
        ("registry.ollama.ai/library/qwen3/latest", "qwen3"),
        ("registry.ollama.ai/library/qwen3/latest", "qwen3:latest"),
        ("registry.ollama.ai/someone/fine/v1", "someone/fine:v1"),
        ("hf.co/org/r-GGUF/Q4_K_M", "hf.co/org/r-GGUF:Q4_K_M"),
        ("localhost:5000/me/own/latest", "localhost:5000/me/own"),
    ],
)
def test_a_name_is_read_as_ollama_reads_it(
    ollama: OllamaStore, world: World, place: str, name: str
) -> None:
    ollama.add(place, model=b"x")
    assert find_stored(named(name), world).file.read_bytes() == b"x"
    (listed,) = list_stored(world)
    assert listed.source.repo in (name, f"{name}:latest")
    assert find_stored(listed.source, world) == listed


def test_the_store_that_the_variable_names_is_read_alone(
    ollama: OllamaStore, tmp_path: Path
) -> None:
    ollama.add(QWEN3, model=b"x")
    other = OllamaStore(tmp_path / "other")
    other.add("registry.ollama.ai/library/llama3/8b", model=b"y")
    world = make_world(tmp_path, OLLAMA_MODELS=str(tmp_path / "other"))
    assert [model.source.repo for model in list_stored(world)] == ["llama3:8b"]


UNKNOWN = ["../../x", "a b", "qwen3:", "/qwen3", "a/b/c/d", "qwen3:4b/../x", "x" * 300]


@pytest.mark.parametrize("name", ["qwen4:4b", *UNKNOWN])
def test_an_unknown_name_is_one_line(ollama: OllamaStore, world: World, name: str) -> None:
    ollama.add(QWEN3, model=b"x")
    with pytest.raises(ModelNotFound) as refused:
        find_stored(named(name), world)
    assert "\n" not in refused.value.message and refused.value.hint


def test_without_a_store_the_places_are_named(world: World) -> None:
    with pytest.raises(ModelNotFound, match="ollama has no model `qwen3`") as refused:
        find_stored(named("qwen3"), world)
    assert "ollama/models" in refused.value.hint and list_stored(world) == []


@pytest.mark.parametrize(
    "manifest",
    [
        "no JSON",
        "[]",
        '{"layers": 5}',
        json.dumps(
            {"layers": [{"mediaType": f"{KIND}model", "digest": "sha256:../../etc/passwd"}]}
        ),
        json.dumps({"layers": [{"mediaType": f"{KIND}model", "digest": f"sha256:{'0' * 64}"}]}),
        " " * 1_000_001,
    ],
)
def test_a_damaged_manifest_is_one_line_and_not_listed(
    ollama: OllamaStore, world: World, manifest: str
) -> None:
    ollama.add(QWEN3, model=b"x").write_text(manifest)
    with pytest.raises(IntegrityError, match="ollama:qwen3:4b is damaged") as refused:
        find_stored(named("qwen3:4b"), world)
    assert "`ollama pull qwen3:4b`" in refused.value.hint and list_stored(world) == []


def test_a_blob_of_another_size_is_damaged(ollama: OllamaStore, world: World) -> None:
    ollama.add(QWEN3, model=b"x")
    next((ollama.root / "blobs").iterdir()).write_bytes(b"longer")
    with pytest.raises(IntegrityError, match="another size"):
        find_stored(named("qwen3:4b"), world)


def test_parameters_that_are_no_json_are_damage(ollama: OllamaStore, world: World) -> None:
    ollama.add(QWEN3, model=b"x", params="temperature 0.5")
    with pytest.raises(IntegrityError, match="its parameters are not JSON"):
        find_stored(named("qwen3:4b"), world)


def test_a_model_of_the_cloud_has_no_file(ollama: OllamaStore, world: World) -> None:
    ollama.add(QWEN3, template="{{ .Prompt }}")
    with pytest.raises(Mismatch, match="is not one GGUF file"):
        find_stored(named("qwen3:4b"), world)


def test_a_blob_gets_a_link_with_an_ending_and_no_copy(ollama: OllamaStore, world: World) -> None:
    ollama.add(QWEN3, model=b"x")
    blob = find_stored(named("qwen3:4b"), world).file
    link = with_ending(blob, "qwen3:4b", world)
    assert link.name.startswith("qwen3-4b-") and link.suffix == ".gguf"
    assert (
        link.is_symlink()
        and link.resolve() == blob
        and with_ending(blob, "qwen3:4b", world) == link
    )


def lm_studio(root: Path) -> Path:
    repo = root / "lmstudio-community" / "Tiny-GGUF"
    write_tiny(repo / "Tiny-Q8_0.gguf", vocabulary=False)
    write_tiny(repo / "Tiny-F16.gguf", vocabulary=False, parts=2)
    (repo / "mmproj-Tiny-F16.gguf").write_bytes(b"eyes")
    return repo


@pytest.mark.parametrize("place", [".lmstudio/models", ".cache/lm-studio/models"])
def test_models_of_lm_studio_are_found_where_they_are(
    tmp_path: Path, world: World, place: str
) -> None:
    repo = lm_studio(tmp_path / place)
    names = [model.source.repo for model in list_stored(world)]
    assert names == [
        "lmstudio-community/Tiny-GGUF/Tiny-F16",
        "lmstudio-community/Tiny-GGUF/Tiny-Q8_0",
    ]
    for name in ("lmstudio-community/Tiny-GGUF/Tiny-Q8_0.gguf", names[1]):
        found = find_stored(Source("lmstudio", name), world)
        assert found.file == repo / "Tiny-Q8_0.gguf" and found.left_out == ("its image encoder",)
    parts = find_stored(Source("lmstudio", names[0]), world)
    assert find_stored(Source("lmstudio", f"{names[0]}-00002-of-00002.gguf"), world) == parts
    assert parts.size == sum(file.stat().st_size for file in repo.glob("Tiny-F16*"))


def test_a_repo_with_one_model_needs_no_file(tmp_path: Path, world: World) -> None:
    repo = lm_studio(tmp_path / ".lmstudio" / "models")
    name = Source("lmstudio", "lmstudio-community/Tiny-GGUF")
    with pytest.raises(ModelNotFound, match="several models") as refused:
        find_stored(name, world)
    assert "lmstudio:lmstudio-community/Tiny-GGUF/Tiny-Q8_0" in refused.value.hint
    for file in repo.glob("Tiny-F16*"):
        file.unlink()
    assert find_stored(name, world).file == repo / "Tiny-Q8_0.gguf"
    with pytest.raises(ModelNotFound, match="LM Studio has no model `x/y`"):
        find_stored(Source("lmstudio", "x/y"), world)


def test_the_folder_of_lm_studios_settings_is_read(tmp_path: Path, world: World) -> None:
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'away'}\n")
    (tmp_path / "away").mkdir()
    settings = tmp_path / "away" / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "disk"), "other": 1}))
    lm_studio(tmp_path / "disk")
    assert len(list_stored(world)) == 2
    settings.write_text("no JSON")
    assert list_stored(world) == []
