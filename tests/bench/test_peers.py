"""Which llama.cpp is measured, and what is printed about its build."""

import os
import sys
from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat import bench
from llmchat.bench import peer_protocol
from llmchat.bench.interleave import Competitor
from llmchat.bench.peer_protocol import LLAMA_CPP, build_facts
from llmchat.bench.peers import Peers
from llmchat.bench.report import Benchmark, Row, build_line
from llmchat.commands.bench import print_report
from llmchat.errors import UsageError
from llmchat.settings import World

COMPILED, WHEEL = {"llama-cpp-python": "0.3.36"}, {"xllamacpp": "2026.10"}


def python_with(folder: Path, name: str, peers: dict[str, dict[str, str]]) -> str:
    """A program that answers like a Python in which these peers are installed."""
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport json\nprint(json.dumps({peers!r}))\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, **os.environ)


def installed_with(names: set[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    def version(package: str) -> str:
        if package not in names:
            raise peer_protocol.importlib.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(peer_protocol.importlib.metadata, "version", version)
    return peer_protocol.installed()


def test_compiled_llama_cpp_is_preferred_to_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    both = installed_with({"llama-cpp-python", "xllamacpp"}, monkeypatch)
    assert both == {LLAMA_CPP: {"llama-cpp-python": "1.0"}}


def test_wheel_is_measured_where_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_with({"xllamacpp"}, monkeypatch) == {LLAMA_CPP: {"xllamacpp": "1.0"}}


def test_peer_needs_all_of_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_with({"ctranslate2"}, monkeypatch) == {}
    both = installed_with({"ctranslate2", "tokenizers"}, monkeypatch)
    assert list(both) == ["CTranslate2 int8"]


@pytest.mark.parametrize("given_has, runs_in", [(WHEEL, "own"), (COMPILED, "given")])
def test_python_with_the_compiled_build_runs_llama_cpp(
    given_has: dict[str, str],
    runs_in: str,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one named by --peers-python wins only if its build is as good."""
    given = python_with(tmp_path, "given", {LLAMA_CPP: given_has})
    own = python_with(tmp_path, "own", {LLAMA_CPP: COMPILED})
    monkeypatch.setattr("llmchat.bench.peers.sys.executable", own)
    assert Path(Peers(world, given)._python_for(LLAMA_CPP)).name == runs_in


def test_missing_peer_names_the_package_to_install(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.bench.peers.sys.executable", python_with(tmp_path, "own", {}))
    with pytest.raises(UsageError, match="llama-cpp-python is not installed"):
        Peers(world)._python_for(LLAMA_CPP)


def test_build_facts_are_the_features_that_are_on() -> None:
    line = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | AVX512_VNNI = 1 | REPACK = 1 | "
    assert build_facts(line) == "SSE3 AVX2 AVX512_VNNI REPACK"


def benchmark(features: list[str], build: str) -> Benchmark:
    row = Row(LLAMA_CPP, "Q8_0", build=build)
    machine = {"device": "cpu", "processor": "a CPU", "cores": 2, "features": features}
    return Benchmark(
        model="tiny", machine=machine, date="2026-11-26", versions={}, rounds=1, prompt_tokens=541,
        decode_tokens=64, rows=[row], skipped=[],
    )  # fmt: skip


def test_build_line_names_what_the_build_leaves_unused() -> None:
    found = benchmark(["avx512_vnni", "avx512f", "avx2", "amx_tile"], "AVX2 AVX512")
    told = f"{LLAMA_CPP} was built with AVX2 AVX512; without avx512_vnni of this processor"
    assert build_line(found.rows[0], found) == told


def test_table_ends_with_what_a_peer_was_built_with(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    print_report(benchmark(["avx2"], "AVX2"), world)
    last = world.stdout.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert last == f"{LLAMA_CPP} was built with AVX2"


def test_peer_reports_its_build_when_it_is_measured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "peer.py"
    file.write_text(
        "from llmchat.bench.peer_protocol import serve\n"
        "run = {'tps': 5.0, 'tokens': 64}\n"
        "serve(lambda: {'decode': lambda: run, 'prefill': lambda: run, 'bandwidth': lambda: 1e9,\n"
        "               'build': lambda: 'AVX2'})\n"
    )
    monkeypatch.setattr(bench, "python_module", lambda *_: (sys.executable, str(file)))
    peer = Competitor(LLAMA_CPP, (sys.executable, str(file)), reports_build=True)
    plan = bench.Plan(
        "tiny", "cpu", 10**9, ((peer, Row(LLAMA_CPP, "Q8_0", ours=True)),), (),
        {"processor": "a CPU", "cores": 2, "device": "cpu"}, {},
    )  # fmt: skip
    found = bench.measure(plan, 1, world, quiet=True)
    assert (found.rows[0].build, found.rows[0].decode_tps) == ("AVX2", 5.0)
