"""Capabilities of engines are declared, asked for with isinstance, and found behind wrappers."""

import ast
from pathlib import Path

import pytest
from support.checkpoints import save_tiny

import llmchat
from llmchat.background.engine import BackgroundEngine
from llmchat.engines import Engine
from llmchat.engines.capabilities import (
    Batches,
    DraftsTokens,
    Embeds,
    InBackground,
    SavesCache,
    Scores,
    TakesAdapters,
    TakesTokenIds,
    unwrap,
)
from llmchat.engines.gguf import GgufEngine
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.embedding.engine import EmbeddingEngine
from llmchat.server.single_slot import SingleSlot

PACKAGE = Path(llmchat.__file__).parent
CAPABILITIES = (
    Batches, DraftsTokens, Embeds, InBackground, SavesCache, Scores, TakesAdapters, TakesTokenIds,
)  # fmt: skip
OF_TRANSFORMERS = {Batches, DraftsTokens, SavesCache, Scores, TakesAdapters, TakesTokenIds}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return TransformersEngine(
        save_tiny(tmp_path_factory.mktemp("tiny")), weights="fp32", device="cpu"
    )


def capabilities_of(engine: Engine) -> set[type]:
    return {one for one in CAPABILITIES if isinstance(unwrap(engine), one)}


def test_transformers_engine_has_its_capabilities(engine: Engine) -> None:
    assert capabilities_of(engine) == OF_TRANSFORMERS


def test_scripted_engine_batches_and_has_nothing_to_save() -> None:
    assert capabilities_of(ScriptedEngine()) == {Batches}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (GgufEngine, set()),
        (OpenAIEngine, set()),
        (BackgroundEngine, {"ask"}),
        (EmbeddingEngine, {"embed"}),
    ],
)
def test_other_engines_declare_at_most_one(kind: type, expected: set[str]) -> None:
    named = {"ask", "begin", "embed", "load_adapter", "prompt_of", "save_cache", "score"}
    assert named & set(dir(kind)) == expected


def test_wrappers_report_what_they_wrap(engine: Engine) -> None:
    loading = LoadingEngine(lambda: engine, "a model")
    assert capabilities_of(loading) == set(), "not known before it is loaded"
    assert loading.count("the fox") > 0
    for wrapper in (loading, SingleSlot(engine), SingleSlot(loading)):
        assert unwrap(wrapper) is engine
        assert capabilities_of(wrapper) == OF_TRANSFORMERS


def test_asking_for_a_capability_does_not_load_the_model() -> None:
    def load() -> Engine:
        raise AssertionError("loaded")

    loading = LoadingEngine(load, "a model")
    assert capabilities_of(loading) == set() and not loading.ready


# What modules that use engines look up by name, each the value of a struct. None is an engine.
LOOKED_UP = {
    "context", "error", "import_module(f'llmchat.{_PUBLIC[name]}')", "known", "loaded.preset",
    "one.paired", "options", "preset", "preset.sampling",
    "report", "request", "sampling", "settings.options", "stream", "task", "wanted.preset",
    "window", "world.stdin",
}  # fmt: skip


def users_of_engines() -> list[Path]:
    """Modules that import the seam, without the engines themselves."""
    paths = set(PACKAGE.rglob("*.py")) - set((PACKAGE / "engines").rglob("*.py"))
    return sorted(path for path in paths if "llmchat.engines" in path.read_text("utf-8"))


def objects_looked_up(tree: ast.Module) -> set[str]:
    """The objects of which an attribute is asked for by its name in a string."""
    functions = ("hasattr", "getattr", "setattr", "delattr")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name)]
    return {ast.unparse(one.args[0]) for one in named if ast.unparse(one.func) in functions}


def untyped_engines(tree: ast.Module) -> set[str]:
    """Variables and parameters that are named after an engine and annotated with Any."""
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.arg)]
    variables = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    annotated = [(one.arg, one.annotation) for one in arguments]
    annotated += [(ast.unparse(one.target), one.annotation) for one in variables]
    return {
        name
        for name, annotation in annotated
        if "engine" in name and annotation and ast.unparse(annotation) == "Any"
    }


@pytest.mark.parametrize("path", users_of_engines(), ids=lambda path: path.stem)
def test_capabilities_of_engines_are_never_found_by_name(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert objects_looked_up(tree) <= LOOKED_UP, "ask isinstance(unwrap(engine), CAPABILITY)"
    assert not untyped_engines(tree), "mypy would accept any attribute of it"
    ignored = [line for line in text.splitlines() if "ignore[attr-defined]" in line]
    assert not [line for line in ignored if "engine" in line]


def test_the_rule_finds_a_lookup_and_an_untyped_engine() -> None:
    tree = ast.parse("def f(engine: Any): return getattr(engine, 'embed', None)")
    assert objects_looked_up(tree) - LOOKED_UP == {"engine"}
    assert untyped_engines(tree) == {"engine"}
