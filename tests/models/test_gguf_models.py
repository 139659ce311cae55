"""GGUF models of other programs: what is kept of their settings, and which engine runs them."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.ollama_store import OllamaStore
from support.random_gguf import tiny_bytes, write_tiny
from support.worlds import make_world

from llmchat.cli import main
from llmchat.errors import LlmchatError, Mismatch
from llmchat.models import pulling
from llmchat.models.elsewhere import list_elsewhere
from llmchat.models.gguf_summary import summary_of
from llmchat.models.library import list_models, remove
from llmchat.models.loading import tokenizer
from llmchat.models.locate import Model, locate
from llmchat.output.progress import NoProgress
from llmchat.presets import preset_for
from llmchat.settings import Options, World

TINY = "registry.ollama.ai/library/tiny/q8"


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaStore:
    return OllamaStore(tmp_path / ".ollama" / "models")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_bytes(tmp_path_factory.mktemp("tiny"))


def located(world: World, model: str, **options: Any) -> Model:
    return locate(preset_for(Options(model=model, **options)), world)


def test_a_model_of_ollama_runs_from_its_blob(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    ollama.add(TINY, model=content, system="Be brief.", params={"temperature": 0.25, "top_k": 7})
    model = located(world, "ollama:tiny:q8")
    assert model.base and model.base.file and model.base.file.samefile(ollama.blob(content))
    preset = model.preset
    assert (preset.name, preset.engine, preset.system) == (
        "ollama:tiny:q8",
        "transformers",
        "Be brief.",
    )
    assert (preset.sampling.temperature, preset.sampling.top_k) == (0.25, 7)
    assert "<|im_start|>" in str(preset.format.template), "the template is the file's own"
    assert tokenizer(model).count("ab") > 0
    assert not [path for path in world.cache.rglob("*.gguf") if not path.is_symlink()]


def test_parameters_of_ollama_are_kept_or_named(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    given = {
        "stop": ["<|end|>", "User:"], "num_ctx": 4096, "num_predict": 99, "seed": 5,
        "repeat_penalty": 1.1, "min_p": 0.05, "mirostat": 2, "num_gpu": 3,
    }  # fmt: skip
    ollama.add(TINY, model=content, params=given, messages="[]", template="{{ .Prompt }}")
    model = located(world, "ollama:tiny:q8")
    sampling = model.preset.sampling
    assert model.preset.format.stops == ("<|end|>", "User:")
    assert (model.preset.context.tokens, sampling.max_tokens, sampling.seed) == (4096, 99, 5)
    assert (sampling.repetition_penalty, sampling.min_p) == (1.1, 0.05)
    assert model.notes == ("note: ollama:tiny:q8: left out: its example messages, `mirostat`",)


def test_what_the_user_gives_comes_before_what_ollama_stores(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    stored = {"temperature": 0.25, "num_ctx": 4096, "num_predict": -1}
    ollama.add(TINY, model=content, system="Be brief.", params=stored)
    own = located(world, "ollama:tiny:q8", temperature=0.7, context=512, system="Be long.").preset
    assert (own.sampling.temperature, own.context.tokens, own.system) == (0.7, 512, "Be long.")
    assert located(world, "ollama:tiny:q8").preset.sampling.max_tokens == own.sampling.max_tokens
    assert located(world, "ollama:tiny:q8", system="").preset.system == ""


def test_parameters_out_of_range_are_left_out(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    ollama.add(TINY, model=content, params={"temperature": "hot", "stop": 5})
    model = located(world, "ollama:tiny:q8")
    assert "left out: its parameters (temperature must be a number" in model.notes[0]


def test_an_adapter_of_ollama_needs_llama_cpp(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    ollama.add(TINY, model=content, adapter=b"GGUF adapter")
    model = located(world, "ollama:tiny:q8")
    assert model.preset.engine == "gguf" and "for its adapter" in model.notes[0]
    assert [adapter.path.read_bytes() for adapter in model.adapters] == [b"GGUF adapter"]
    assert located(world, "ollama:tiny:q8", adapter="none").preset.engine == "transformers"


def test_a_model_of_lm_studio_runs_where_it_is(tmp_path: Path, world: World) -> None:
    file = write_tiny(tmp_path / ".lmstudio" / "models" / "me" / "tiny" / "tiny-Q8_0.gguf")
    model = located(world, "lmstudio:me/tiny/tiny-Q8_0")
    assert model.base and model.base.file == file and model.preset.engine == "transformers"
    assert located(world, "lmstudio:me/tiny/tiny-Q8_0.gguf", engine="gguf").base.file == file  # type: ignore[union-attr]


def test_the_models_of_other_programs_are_listed(
    ollama: OllamaStore, content: bytes, tmp_path: Path, world: World
) -> None:
    ollama.add(TINY, model=content)
    ollama.add("registry.ollama.ai/library/broken/v1", model=b"no GGUF file")
    models = tmp_path / ".lmstudio" / "models" / "me"
    write_tiny(models / "clip" / "eyes-Q8_0.gguf", architecture="clip")
    write_tiny(models / "new" / "new-Q8_0.gguf", architecture="brand-new", parts=2)
    found = {model.name: model for model in list_elsewhere(world)}
    facts = {
        name: (model.architecture, model.quantisation, model.runs) for name, model in found.items()
    }
    assert facts == {
        "lmstudio:me/clip/eyes-Q8_0": ("clip", "Q8_0", "no"),
        "lmstudio:me/new/new-Q8_0": ("brand-new", "Q8_0", "no"),
        "ollama:broken:v1": ("", "", "no"),
        "ollama:tiny:q8": ("llama", "Q8_0", "yes"),
    }  # fmt: skip
    assert found["ollama:tiny:q8"].size == len(content)
    assert "is not a GGUF file" in found["ollama:broken:v1"].note
    assert "no plan for its architecture `brand-new`" in found["lmstudio:me/new/new-Q8_0"].note


def test_ls_prints_them_as_a_table_and_as_json(
    ollama: OllamaStore, content: bytes, tmp_path: Path, world: World
) -> None:
    ollama.add(TINY, model=content)
    assert main(["ls", "--elsewhere"], world) == 0
    assert world.stdout.getvalue() == "ollama:tiny:q8\t117 kB\tllama\tQ8_0\tyes\t\n"  # type: ignore[attr-defined]
    again = make_world(tmp_path)
    assert main(["ls", "--elsewhere", "--json"], again) == 0
    (listed,) = json.loads(again.stdout.getvalue())  # type: ignore[attr-defined]
    assert listed["name"] == "ollama:tiny:q8" and listed["path"].startswith(str(ollama.root))
    empty = make_world(tmp_path / "nobody")
    assert main(["ls", "--elsewhere"], empty) == 0 and "no GGUF models" in empty.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_header_is_read_once(ollama: OllamaStore, content: bytes, world: World) -> None:
    ollama.add(TINY, model=content)
    first = list_elsewhere(world)
    blob = ollama.blob(content)
    times = blob.stat().st_atime_ns, blob.stat().st_mtime_ns
    blob.write_bytes(bytes(len(content)))
    os.utime(blob, ns=times)
    assert list_elsewhere(world) == first, "what was read is kept while the file has not changed"
    blob.write_bytes(bytes(len(content)))
    assert list_elsewhere(world)[0].runs == "no"


def test_removing_a_model_of_ollama_frees_what_was_made_of_it_alone(
    ollama: OllamaStore, content: bytes, world: World
) -> None:
    ollama.add(TINY, model=content)
    preset = preset_for(Options(model="ollama:tiny:q8"))
    planned = pulling.plan_pull(preset, world)
    parts = [part.checkpoint for part in pulling.pull(planned, world, NoProgress())]
    assert pulling.prepare_copy(planned.preset, parts, world, NoProgress())
    (listed,) = list_models(world)
    assert (listed.name, listed.kind, listed.weights) == ("ollama:tiny:q8", "file", "Q8_0")
    assert listed.prepared > 100_000
    assert remove(preset, world) >= listed.prepared and list_models(world) == []
    assert ollama.blob(content).read_bytes() == content
    assert not [path for path in world.cache.rglob("*") if path.suffix in (".safetensors", ".bin")]


def test_a_family_without_a_plan_and_without_llama_cpp_is_refused(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny(tmp_path / "plamo.gguf", architecture="plamo")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "xllamacpp" else find_spec(name)
    )
    found = summary_of(file, world)
    assert found.problem == "llmchat has no plan for its architecture `plamo`"
    with pytest.raises(Mismatch) as refused:
        _ = found.engine
    assert 'pip install "llmchat[gguf]"' in refused.value.hint


def test_parts_that_are_missing_are_named(tmp_path: Path, world: World) -> None:
    first = write_tiny(tmp_path / "tiny.gguf", parts=3)
    assert located(world, str(first)).base
    (tmp_path / "tiny-00002-of-00003.gguf").unlink()
    with pytest.raises(LlmchatError, match=r"tiny-00002-of-00003\.gguf is missing"):
        located(world, str(first))


def test_show_tells_what_ollama_stores(ollama: OllamaStore, content: bytes, world: World) -> None:
    given = {"mirostat": 1, "temperature": 0.25}
    ollama.add(TINY, model=content, params=given, license="MIT License\nText")
    assert main(["show", "ollama:tiny:q8", "--json"], world) == 0
    facts = json.loads(world.stdout.getvalue())  # type: ignore[attr-defined]
    assert facts["notes"] == "left out of what ollama stores: `mirostat`"
    assert facts["sampling"]["temperature"] == 0.25 and facts["pulled"]
    assert (facts["licence"], facts["weights"], facts["bits"]) == ("MIT License", "Q8_0", 8.57)
