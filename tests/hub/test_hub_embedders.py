"""Embedders from a Hub: their files lie in folders of the repo."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from support.embedders import (
    TEXTS,
    reference_vectors,
    save_dense,
    save_encoder,
    save_sentence_transformer,
)
from support.loopback_hub import Hub, Repo, serving
from support.worlds import MakeWorld

from llmchat.errors import IntegrityError, ModelNotFound
from llmchat.hub import find, pull, verify
from llmchat.models.embedding import embedder_preset, open_embedder, open_text_embedder
from llmchat.output.progress import NoProgress
from llmchat.presets import Preset
from llmchat.presets import find as find_preset
from llmchat.presets.types import Source

pytestmark = pytest.mark.usefixtures("no_waiting")
GEMMA = "google/embeddinggemma-300m"
BARE = "org/embedder"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_encoder(tmp_path_factory.mktemp("gemma"), "gemma3_text")
    save_dense(folder / "2_Dense", 32, 48)
    save_dense(folder / "3_Dense", 48, 32)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def hub(gemma: Path, bare: Path) -> Iterator[Hub]:
    extra = {
        "onnx/model.onnx": b"x",
        "2_Dense/pytorch_model.bin": b"x",
        "code/evil/config.json": b"{}",
    }
    repo = Repo.of_folder(bare)
    repo.files |= extra
    with serving(Hub({GEMMA: Repo.of_folder(gemma), BARE: repo})) as hub:
        yield hub


def tiny_gemma() -> Preset:
    """The preset of EmbeddingGemma with the sizes of the tiny one."""
    preset = find_preset("embeddinggemma-300m")
    assert preset.embedder
    spec = replace(preset.embedder, dimensions=32, shortest=8, longest=48)
    return replace(preset, embedder=spec)


def test_embeddinggemma_is_pulled_with_its_dense_layers(
    hub: Hub, at: MakeWorld, gemma: Path
) -> None:
    preset = tiny_gemma()
    folder = pull(preset.base, at(), NoProgress()).checkpoint.path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    assert names == set(preset.base.files)
    with torch.inference_mode():
        hidden = reference_vectors(
            gemma, [f"title: none | text: {TEXTS[0]}"], 48, "mean", unit=False
        )
        for number in ("2_Dense", "3_Dense"):
            hidden = hidden @ load_file(gemma / number / "model.safetensors")["linear.weight"].T
    expected = torch.nn.functional.normalize(hidden, dim=-1)
    vectors = torch.tensor(open_text_embedder(preset, at()).embed_passages(TEXTS[:1]))
    torch.testing.assert_close(vectors, expected, atol=1e-3, rtol=1e-3)


def test_a_lost_dense_layer_is_found_and_fetched_again(hub: Hub, at: MakeWorld) -> None:
    base = find_preset("embeddinggemma-300m").base
    folder = pull(base, at(), NoProgress()).checkpoint.path
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"2_Dense/model\.safetensors"):
        verify(base, at())
    pull(base, at(), NoProgress())
    assert (folder / "2_Dense" / "model.safetensors").is_file()


def test_a_repo_without_a_dense_layer_is_refused(hub: Hub, at: MakeWorld) -> None:
    del hub.repos[GEMMA].files["3_Dense/config.json"]
    with pytest.raises(ModelNotFound, match=r"has no file 3_Dense/config\.json"):
        pull(find_preset("embeddinggemma-300m").base, at(), NoProgress())


def test_a_repo_without_a_preset_comes_with_the_steps_of_its_vectors(
    hub: Hub, at: MakeWorld, bare: Path
) -> None:
    folder = pull(Source("hub", BARE), at(), NoProgress()).checkpoint.path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/config.json"} <= names
    assert {"2_Dense/model.safetensors", "sentence_bert_config.json"} <= names
    assert not any(name.endswith((".onnx", ".bin")) or "evil" in name for name in names)
    embedder = open_embedder(at(), BARE)
    here = open_text_embedder(embedder_preset(at(), str(bare)), at())
    assert (embedder.width, embedder.longest) == (16, here.longest)
    assert (embedder.embed_questions(TEXTS) == here.embed_questions(TEXTS)).all()
    assert find(Source("hub", BARE), at()).path == folder
