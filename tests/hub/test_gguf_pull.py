"""Pulls of GGUF repos from a Hub on loopback: the header first, then one file or its parts."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.loopback_hub import Hub, Repo, serving
from support.random_gguf import tiny_bytes, write_tiny
from support.worlds import MakeWorld

from llmchat import hub as store
from llmchat.cli import main
from llmchat.errors import (
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NetworkError,
    NotAuthorised,
    OutOfResources,
)
from llmchat.hub.machine import Machine
from llmchat.models import pulling
from llmchat.models.library import list_models
from llmchat.models.library import remove as remove_model
from llmchat.models.locate import locate
from llmchat.output.progress import NoProgress
from llmchat.presets import Preset, Source, preset_for
from llmchat.settings import Options, World

pytestmark = pytest.mark.usefixtures("no_waiting")
REPO = "org/tiny-GGUF"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a repo: two variants, one of them in parts, and what goes with them."""
    folder = tmp_path_factory.mktemp("repo")
    write_tiny(folder / "tiny-F16.gguf", parts=3, seed=1)
    write_tiny(folder / "tiny-q8_0.gguf")
    (folder / "mmproj-tiny-F16.gguf").write_bytes(b"eyes")
    (folder / "imatrix.gguf").write_bytes(b"statistics")
    (folder / "README.md").write_text("# a model")
    return Repo.of_folder(folder).files


@pytest.fixture
def hub(weights: dict[str, bytes]) -> Iterator[Hub]:
    with serving(
        Hub({REPO: Repo(dict(weights), licence="apache-2.0", branches=("main", "v1"))})
    ) as hub:
        yield hub


def find(model: str, **options: str) -> Preset:
    return preset_for(Options(model=model, **options))  # type: ignore[arg-type]


def plan_of(model: str, world: World) -> pulling.PlannedPull:
    return pulling.plan_pull(find(model), world)


def pulled(model: str, world: World) -> store.Checkpoint:
    planned = plan_of(model, world)
    return pulling.pull(planned, world, NoProgress())[0].checkpoint


def test_the_header_is_read_before_any_weights(
    hub: Hub, at: MakeWorld, weights: dict[str, bytes]
) -> None:
    plan = plan_of(f"{REPO}:Q8_0", at()).plan
    size = len(weights["tiny-q8_0.gguf"])
    assert (plan.model, plan.download, plan.licence) == (f"{REPO}:Q8_0", size, "apache-2.0")
    assert plan.quantised == "Q8_0" and plan.verdict == "yes" and plan.parameters > 100_000
    assert 0 < plan.memory.total["int8"] - plan.memory.kv - 600_000_000 < size
    assert [note for note in plan.notes if "llama Q8_0: runs in llmchat's own engine" in note]
    ranges = [request.range for request in hub.downloads()]
    assert ranges and all(one and one.startswith("bytes=0-") for one in ranges)


def test_a_long_header_takes_more_requests_and_no_byte_twice(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.hub.gguf_remote._FIRST", 1000)
    plan_of(f"{REPO}:Q8_0", at())
    ranges = [str(request.range).removeprefix("bytes=").split("-") for request in hub.downloads()]
    assert len(ranges) > 2
    assert all(int(one[1]) + 1 == int(other[0]) for one, other in pairwise(ranges))
    assert int(ranges[-1][1]) < len(hub.repos[REPO].files["tiny-q8_0.gguf"]) / 2


def test_a_server_that_ignores_ranges_is_read_as_well(hub: Hub, at: MakeWorld) -> None:
    hub.ignore_ranges = True
    assert plan_of(f"{REPO}:Q8_0", at()).plan.quantised == "Q8_0"


def test_files_on_another_server_are_read_by_ranges_there(hub: Hub, at: MakeWorld) -> None:
    hub.cdn = True
    found = pulled(f"{REPO}:Q8_0", at(HF_TOKEN=hub.token))
    assert found.file and found.file.is_file()
    asked = [request for request in hub.requests if request.path.startswith("/cdn/")]
    assert asked and not any(request.token for request in asked), "the token is for the Hub alone"


def test_one_file_arrives_and_nothing_else(
    hub: Hub, at: MakeWorld, weights: dict[str, bytes]
) -> None:
    found = pulled(f"{REPO}:q8_0", at())
    assert found.source == Source("hub", REPO, variant="Q8_0") and found.revision == "a" * 40
    assert found.file and found.file.name == "tiny-q8_0.gguf"
    assert found.file.read_bytes() == weights["tiny-q8_0.gguf"]
    assert {path.name for path in found.file.parent.iterdir()} == {"tiny-q8_0.gguf"}
    before = hub.sent
    again = pulling.pull(plan_of(f"{REPO}:Q8_0", at()), at(), NoProgress())[0]
    assert again.downloaded == 0 and hub.sent == before


def test_all_parts_of_a_model_arrive(hub: Hub, at: MakeWorld, weights: dict[str, bytes]) -> None:
    plan = plan_of(f"{REPO}:F16", at()).plan
    parts = [name for name in weights if name.startswith("tiny-F16")]
    assert plan.parts[0].files == 3 and plan.download == sum(len(weights[name]) for name in parts)
    found = pulled(f"{REPO}:F16", at())
    assert found.file and found.file.name == "tiny-F16-00001-of-00003.gguf"
    assert sorted(path.name for path in found.file.parent.iterdir()) == sorted(parts)


def test_one_download_answers_to_every_name_of_a_file(hub: Hub, at: MakeWorld) -> None:
    first = pulled(f"{REPO}:tiny-q8_0.gguf", at())
    hub.requests.clear()
    for name in ("tiny-q8_0.gguf", "tiny-q8_0", "Q8_0"):
        assert locate(find(f"{REPO}:{name}"), at()).base == first
    assert locate(find(REPO), at()).base == first, "it is the only file of the repo"
    assert (
        locate(find(f"https://huggingface.co/{REPO}/blob/main/tiny-q8_0.gguf"), at()).base == first
    )
    assert not hub.requests


def test_a_repo_of_which_several_files_are_here_needs_a_name(hub: Hub, at: MakeWorld) -> None:
    pulled(f"{REPO}:Q8_0", at())
    pulled(f"{REPO}:F16", at())
    with pytest.raises(ModelNotFound, match="several files on this machine") as refused:
        locate(find(REPO), at())
    assert f"{REPO}:F16, {REPO}:Q8_0" in refused.value.hint


def test_a_file_that_is_not_pulled_names_the_command(hub: Hub, at: MakeWorld) -> None:
    with pytest.raises(ModelNotFound, match="is not pulled") as refused:
        locate(find(f"{REPO}:Q8_0"), at())
    assert f"`llmchat pull {REPO}:Q8_0` downloads it" in refused.value.hint and not hub.requests


def test_without_a_name_the_best_that_fits_is_proposed(hub: Hub, at: MakeWorld) -> None:
    planned = plan_of(REPO, at())
    assert planned.proposed and planned.plan.model == f"{REPO}:Q8_0"
    choices = {choice.name: choice for choice in planned.plan.choices}
    assert {name: choice.chosen for name, choice in choices.items()} == {"F16": False, "Q8_0": True}
    assert choices["F16"].files == 3 and all(choice.fits for choice in choices.values())
    assert not plan_of(f"{REPO}:F16", at()).proposed


def test_a_revision_is_kept(hub: Hub, at: MakeWorld) -> None:
    found = pulled(f"https://huggingface.co/{REPO}/resolve/v1/tiny-q8_0.gguf", at())
    assert found.source == Source("hub", REPO, "v1", variant="Q8_0")


def small_machine(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(pulling, "this_machine", lambda world: Machine(free))


def test_what_does_not_fit_is_refused_with_what_would(
    hub: Hub, at: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = hub.repos[REPO].files
    hub.repos[REPO].files = {
        "tiny-q8_0.gguf": files["tiny-q8_0.gguf"],
        "tiny-F32.gguf": tiny_bytes(tmp_path, layers=40),
    }
    small_machine(monkeypatch, 602_000_000)
    with pytest.raises(OutOfResources, match=r"it needs 602\.\d MB as Q8_0") as refused:
        plan_of(f"{REPO}:F32", at()).plan.enforce()
    assert refused.value.hint.startswith(f"{REPO}:Q8_0 (601.")
    assert plan_of(REPO, at()).plan.model == f"{REPO}:Q8_0"
    small_machine(monkeypatch, 1000)
    nothing = plan_of(REPO, at()).plan
    assert nothing.verdict == "no" and not any(choice.fits for choice in nothing.choices)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"architecture": "clip"}, "it holds no language model: its architecture is `clip`"),
        ({"texts": {"general.type": "adapter"}}, "it holds no language model"),
        ({"architecture": "bert"}, "it holds no language model"),
        ({"architecture": "brand-new"}, "llmchat has no plan for its architecture `brand-new`"),
    ],
)
def test_a_file_that_cannot_run_is_refused_before_its_weights(
    hub: Hub, at: MakeWorld, tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    hub.repos[REPO].files = {"a-Q8_0.gguf": tiny_bytes(tmp_path, **options)}
    plan = plan_of(REPO, at()).plan
    with pytest.raises(Mismatch) as refused:
        plan.enforce()
    assert line in refused.value.message and "--force" in refused.value.hint
    assert not any(request.range is None for request in hub.downloads())


def test_a_family_without_a_plan_runs_in_llama_cpp(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    hub.repos[REPO].files = {"a-Q8_0.gguf": tiny_bytes(tmp_path, architecture="plamo")}
    plan = plan_of(REPO, at()).plan
    assert any("plamo Q8_0: runs in llama.cpp" in note for note in plan.notes)
    pulled(f"{REPO}:Q8_0", at())
    model = locate(find(f"{REPO}:Q8_0"), at())
    assert model.preset.engine == "gguf" and "runs in llama.cpp" in model.notes[0]
    ours = locate(find(f"{REPO}:Q8_0", engine="gguf"), at())
    assert ours.base == model.base and ours.notes == ()


def without_tokenizer(
    hub: Hub, folder: Path, base: str = "https://huggingface.co/org/base"
) -> None:
    texts = {"general.base_model.0.repo_url": base}
    content = tiny_bytes(folder, vocabulary=False, texts=texts)
    hub.repos[REPO].files = {"a-Q8_0.gguf": content}


def test_the_tokenizer_of_the_base_is_fetched_where_a_file_has_none(
    hub: Hub, at: MakeWorld, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    hub.repos["org/base"] = Repo.of_folder(folders[0])
    without_tokenizer(hub, tmp_path)
    plan = plan_of(f"{REPO}:Q8_0", at()).plan
    assert any(note.endswith("engine, with the tokenizer of org/base") for note in plan.notes)
    part = pulling.pull(plan_of(f"{REPO}:Q8_0", at()), at(), NoProgress())[0]
    assert "the tokenizer is that of org/base" in part.notes[-1]
    fetched = part.checkpoint.path / "tokenizer.json"
    assert fetched.read_bytes() == (folders[0] / "tokenizer.json").read_bytes()
    assert not any("model.safetensors" in request.path for request in hub.downloads())
    model = locate(find(f"{REPO}:Q8_0", format="chatml"), at())
    assert model.base == part.checkpoint and model.preset.engine == "transformers"


def test_a_file_without_a_tokenizer_and_without_a_base_is_refused(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    without_tokenizer(hub, tmp_path, "example.com")
    with pytest.raises(Mismatch, match="it has no tokenizer, and names no base model"):
        plan_of(f"{REPO}:Q8_0", at()).plan.enforce()


def test_a_base_without_a_tokenizer_is_one_line(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    hub.repos["org/base"] = Repo({"README.md": b"# nothing"})
    without_tokenizer(hub, tmp_path)
    with pytest.raises(Mismatch, match="has no tokenizer, and neither has its base org/base"):
        pulled(f"{REPO}:Q8_0", at())


HEADERS = {
    "cut": (lambda content: content[:3000], IntegrityError),
    "no GGUF": (lambda content: b"<html>" * 100, LlmchatError),
    "empty": (lambda content: b"", IntegrityError),
    "a length near 2^63": (
        lambda content: content[:8] + (2**63 - 1).to_bytes(8, "little") + content[16:],
        IntegrityError,
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_is_one_line(hub: Hub, at: MakeWorld, name: str) -> None:
    change, kind = HEADERS[name]
    files = hub.repos[REPO].files
    files["tiny-q8_0.gguf"] = change(files["tiny-q8_0.gguf"])
    with pytest.raises(kind) as refused:
        plan_of(f"{REPO}:Q8_0", at())
    assert "\n" not in refused.value.message


FAULTS = {
    "gated": (lambda hub: setattr(hub.repos[REPO], "gated", True), NotAuthorised, "is gated"),
    "another name": (
        lambda hub: hub.repos[REPO].files.pop("tiny-q8_0.gguf"), ModelNotFound,
        "org/tiny-GGUF has no `Q8_0`",
    ),
    "a missing file": (
        lambda hub: hub.fail_with.update({"tiny-q8_0.gguf": 404}), ModelNotFound, "is incomplete",
    ),
    "wrong bytes": (
        lambda hub: setattr(hub, "wrong_bytes", True), IntegrityError, "arrived damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line_and_leaves_nothing_that_opens(
    hub: Hub, at: MakeWorld, name: str
) -> None:
    break_it, kind, line = FAULTS[name]
    break_it(hub)
    with pytest.raises(LlmchatError) as failed:
        pulled(f"{REPO}:Q8_0", at())
    assert type(failed.value) is kind and line in failed.value.message
    with pytest.raises(ModelNotFound):
        store.find(Source("hub", REPO, variant="Q8_0"), at())


def test_a_gated_repo_opens_with_a_token(hub: Hub, at: MakeWorld) -> None:
    hub.repos[REPO].gated = hub.repos[REPO].listed = True
    with pytest.raises(NotAuthorised):
        plan_of(f"{REPO}:Q8_0", at())
    assert pulled(f"{REPO}:Q8_0", at(HF_TOKEN=hub.token)).file


def test_a_pull_goes_on_where_it_was_cut(hub: Hub, at: MakeWorld) -> None:
    planned = plan_of(f"{REPO}:Q8_0", at())
    hub.cut_after = [40_000, *[0] * 20]
    with pytest.raises(NetworkError):
        pulling.pull(planned, at(), NoProgress())
    hub.cut_after, before = [], hub.sent
    again = plan_of(f"{REPO}:Q8_0", at())
    assert again.plan.partial == 40_000
    pulling.pull(again, at(), NoProgress())
    assert hub.downloads()[-1].range == "bytes=40000-" and hub.sent > before


def test_a_new_version_of_a_file_is_fetched(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    first = pulled(f"{REPO}:Q8_0", at())
    hub.repos[REPO].commit = "b" * 40
    hub.repos[REPO].files["tiny-q8_0.gguf"] = tiny_bytes(tmp_path, seed=5)
    second = pulled(f"{REPO}:Q8_0", at())
    assert second.revision == "b" * 40 and second.path != first.path


def test_verify_reads_a_file_again(hub: Hub, at: MakeWorld) -> None:
    found = pulled(f"{REPO}:Q8_0", at())
    assert store.verify(found.source, at()).revision == "a" * 40
    assert found.file
    blob = found.file.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"tiny-q8_0\.gguf is damaged"):
        store.verify(found.source, at())
    assert pulled(f"{REPO}:Q8_0", at()).file and store.verify(found.source, at())


def test_removing_one_file_keeps_the_others(
    hub: Hub, at: MakeWorld, weights: dict[str, bytes], tmp_path: Path
) -> None:
    pulled(f"{REPO}:Q8_0", at())
    pulled(f"{REPO}:F16", at())
    freed = remove_model(find(f"{REPO}:Q8_0"), at())
    assert freed > len(weights["tiny-q8_0.gguf"])
    with pytest.raises(ModelNotFound):
        store.find(Source("hub", REPO, variant="Q8_0"), at())
    assert store.verify(Source("hub", REPO, variant="F16"), at())
    names = {path.name for path in (tmp_path / "hf").rglob("*.gguf")}
    assert "tiny-q8_0.gguf" not in names and "tiny-F16-00001-of-00003.gguf" in names
    remove_model(find(REPO), at())
    assert not list((tmp_path / "hf" / "hub").rglob("*.gguf"))
    assert not list((at().cache / "models").glob("*")) and not list_models(at())


def test_pulled_files_are_listed_by_name_and_kind(hub: Hub, at: MakeWorld) -> None:
    pulled(f"{REPO}:Q8_0", at())
    (listed,) = list_models(at())
    assert (listed.name, listed.kind, listed.weights) == (f"{REPO}:Q8_0", "repo", "Q8_0")
    assert listed.licence == "apache-2.0" and listed.size > 100_000


def test_what_another_tool_has_downloaded_opens_without_a_pull(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "tiny-q8_0.gguf", cache_dir=tmp_path / "hf" / "hub", endpoint=hub.url)
    hub.requests.clear()
    found = locate(find(f"{REPO}:Q8_0"), at()).base
    assert found and found.file and not hub.requests
    assert locate(find(REPO), at()).base == found
    assert pulling.pull(plan_of(f"{REPO}:Q8_0", at()), at(), NoProgress())[0].downloaded == 0
    assert store.verify(found.source, at())


def test_a_dry_run_prints_the_table(hub: Hub, at: MakeWorld) -> None:
    world = at()
    assert main(["pull", REPO, "--dry-run"], world) == 0
    lines = world.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].split() == ["file", "size", "memory"]
    assert lines[1].startswith("Q8_0") and lines[1].endswith("fits (chosen)")
    assert lines[2].startswith("F16") and lines[2].endswith("fits, in 3 files")
    assert any(line.split()[:2] == ["model", f"{REPO}:Q8_0,"] for line in lines)


def test_the_plan_as_json_has_the_choices(hub: Hub, at: MakeWorld) -> None:
    world = at()
    assert main(["pull", REPO, "--dry-run", "--json"], world) == 0
    plan = json.loads(world.stdout.getvalue())  # type: ignore[attr-defined]
    assert [choice["name"] for choice in plan["choices"]] == ["Q8_0", "F16"]


@pytest.mark.parametrize(
    ("answer", "tty", "flags", "code"),
    [
        ("n\n", True, (), 2),
        ("", False, (), 0),
        pytest.param("y\n", True, (), 0, marks=pytest.mark.slow),
        pytest.param("", True, ("--yes",), 0, marks=pytest.mark.slow),
    ],
)
def test_the_proposal_is_taken_after_a_yes_or_in_a_pipe(
    hub: Hub,
    at: MakeWorld,
    tmp_path: Path,
    answer: str,
    tty: bool,
    flags: tuple[str, ...],
    code: int,
) -> None:
    from support.worlds import make_world

    world = make_world(
        tmp_path / "home", answer, tty, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf")
    )
    assert main(["pull", REPO, "--no-prepare", *flags], world) == code
    told = world.stderr.getvalue()  # type: ignore[attr-defined]
    assert "Q8_0" in told and ("name a file: org/tiny-GGUF:F16" in told) == (code == 2)
    assert bool(list((tmp_path / "hf").rglob("*.gguf"))) == (code == 0)


def test_the_header_tells_the_licence_and_the_lack_of_a_template(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    content = tiny_bytes(tmp_path, template="", texts={"general.license": "mit"})
    hub.repos[REPO] = Repo({"a-Q8_0.gguf": content})
    plan = plan_of(REPO, at()).plan
    assert plan.licence == "mit"
    assert plan.notes[-1] == "it has no chat template: --format names a prompt format for it"
    pulled(REPO, at())
    assert list_models(at())[0].licence == "mit"
    with pytest.raises(Mismatch, match="has no chat template"):
        locate(find(REPO), at())
    assert locate(find(REPO, format="chatml"), at()).base


def test_a_full_disk_is_seen_before_the_weights(
    hub: Hub, at: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutOfResources, match="of disk are needed"):
        plan_of(f"{REPO}:Q8_0", at()).plan.enforce()


def test_a_server_answers_with_a_pulled_file_by_its_name(hub: Hub, at: MakeWorld) -> None:
    pytest.importorskip("fastapi")
    from llmchat.server.catalog import Catalog
    from llmchat.server.errors import UnknownModel

    pulled(f"{REPO}:Q8_0", at())
    catalog = Catalog(at(), {}, [], {}, 1)
    assert catalog.names() == [f"{REPO}:Q8_0"]
    spec = catalog.spec(f"{REPO}:Q8_0")
    assert spec.preset.engine == "transformers" and 50_000 < spec.size < 1_000_000
    for name in (f"{REPO}:F16", "ollama:qwen3", "./x.gguf"):
        with pytest.raises(UnknownModel):
            catalog.spec(name)


@pytest.mark.slow
def test_a_pulled_file_answers_in_both_engines(hub: Hub, at: MakeWorld) -> None:
    pulled(f"{REPO}:F16", at())
    ask = ["chat", "-n", "-m", f"{REPO}:F16", "--max-tokens", "1", "--temperature", "0", "hello"]
    answers = set()
    for engine in ((), ("--engine", "gguf")):
        world = at()
        assert main([*ask, *engine], world) == 0
        answers.add(world.stdout.getvalue())  # type: ignore[attr-defined]
    assert len(answers) == 1 and answers != {"\n"}, "both compute with the numbers of the file"
