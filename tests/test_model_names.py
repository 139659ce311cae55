"""The spellings of a MODEL argument that is not a preset, and the file that it names."""

from pathlib import Path

import pytest

from llmchat.errors import ModelNotFound, UsageError
from llmchat.presets import Source, find, preset_for
from llmchat.presets.load import absolute
from llmchat.settings import Options

Q4 = Source("hub", "org/r-GGUF", variant="Q4_K_M")
FILE = Source("hub", "org/r-GGUF", variant="sub/r-q4_k_m.gguf")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("org/r-GGUF:Q4_K_M", Q4),
        ("org/r-GGUF:q4_k_m", Q4),
        ("hf.co/org/r-GGUF:Q4_K_M", Q4),
        ("https://hf.co/org/r-GGUF:Q4_K_M", Q4),
        ("https://huggingface.co/org/r-GGUF:Q4_K_M", Q4),
        ("org/r-GGUF:sub/r-q4_k_m.gguf", FILE),
        ("https://huggingface.co/org/r-GGUF/blob/main/sub/r-q4_k_m.gguf", FILE),
        ("https://huggingface.co/org/r-GGUF/resolve/main/sub/r-q4_k_m.gguf?download=true", FILE),
        ("huggingface.co/org/r-GGUF/resolve/main/sub/r-q4_k_m.gguf", FILE),
        ("https://huggingface.co/org/r", Source("hub", "org/r")),
        ("https://huggingface.co/org/r/tree/v1", Source("hub", "org/r", "v1")),
        ("https://huggingface.co/org/r/blob/v1/config.json", Source("hub", "org/r", "v1")),
        ("hf.co/org/r", Source("hub", "org/r")),
        ("org/r:latest", Source("hub", "org/r")),
        ("ollama:qwen3", Source("ollama", "qwen3")),
        ("ollama:hf.co/org/r:Q4_K_M", Source("ollama", "hf.co/org/r:Q4_K_M")),
        ("lmstudio:org/r/r-q4_k_m.gguf", Source("lmstudio", "org/r/r-q4_k_m.gguf")),
    ],
)
def test_a_spelling_names_a_source(text: str, source: Source) -> None:
    assert find(text).base == source and absolute(text) == text


def test_a_model_is_called_by_its_repo_and_file() -> None:
    assert find("https://hf.co/org/r-GGUF/resolve/v1/r.gguf").name == "org/r-GGUF:r.gguf"
    assert find("ollama:qwen3:4b").name == "ollama:qwen3:4b"


@pytest.mark.parametrize(
    "text", ["https://example.com/org/r", "ftp://hf.co/org/r", "https://huggingface.co/org"]
)
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a model"):
        find(text)


@pytest.mark.parametrize("text", ["ollama:", "org/r:", "org/r: x", "a:b"])
def test_what_names_nothing_is_an_unknown_model(text: str) -> None:
    with pytest.raises(ModelNotFound, match="no model is called"):
        find(text)


def test_a_file_on_this_machine_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "r:q4.gguf").touch()
    assert find("org/r:q4.gguf").base == Source("path", str(tmp_path / "org" / "r:q4.gguf"))
    assert find("org/other.gguf").base.kind == "path", "a path that is not there is no repo"


def test_a_link_keeps_the_ending_that_its_target_lacks(tmp_path: Path) -> None:
    (tmp_path / "blob").touch()
    (tmp_path / "model.gguf").symlink_to(tmp_path / "blob")
    assert find(str(tmp_path / "model.gguf")).base.repo == str(tmp_path / "model.gguf")


def test_the_engine_of_a_gguf_file_is_open_until_it_is_named() -> None:
    assert preset_for(Options(model="org/r:Q4_K_M")).engine == "auto"
    assert preset_for(Options(model="org/r:Q4_K_M", engine="transformers")).engine == "transformers"
    assert preset_for(Options(model="smollm2", base="./x.gguf")).engine == "auto"
    assert preset_for(Options(model="org/r")).engine == "transformers"


def test_settings_of_the_user_are_remembered_for_a_model_of_ollama() -> None:
    given = Options(model="ollama:x", temperature=0.5, context=512, system="Be brief.")
    assert preset_for(given).overrides == ("temperature", "tokens", "system")
    assert preset_for(Options(model="smollm2", temperature=0.5)).overrides == ()
