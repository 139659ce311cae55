"""`llmchat bench`: what is timed, who takes part, and what is printed."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import save_tiny, tiny_config
from support.worlds import make_world

from llmchat import bench
from llmchat.bench import peer_protocol
from llmchat.bench.bandwidth import Memory
from llmchat.bench.cost import read_per_token
from llmchat.bench.interleave import (
    Competitor,
    CompetitorProcess,
    MeasurementFailed,
    Measurements,
    batches,
    measure_in_turn,
    started,
)
from llmchat.bench.report import Benchmark, Row
from llmchat.cli import main
from llmchat.commands.bench import print_report
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.prompt import Prompt

LONGER = {"max_position_embeddings": 4096}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), tiny_config(**LONGER))


def test_no_token_ends_an_answer_that_ignores_them(tiny: Path) -> None:
    engine = TransformersEngine(tiny, weights="fp32", device="cpu")
    first = int(engine.logits(engine.encode(Prompt("the quick", ()))).argmax())
    prompt = Prompt("the quick", (), stop_ids=(first,))

    def finish(sampling: Sampling) -> Finish:
        *_, last = engine.stream(prompt, sampling)
        assert not isinstance(last, Chunk)
        return last

    assert finish(Sampling(temperature=0, max_tokens=9)).reply_tokens == 1
    assert finish(Sampling(temperature=0, max_tokens=9, ignore_eos=True)).reply_tokens == 9


# What a token reads


SHAPES = {
    "model.embed_tokens.weight": (1000, 64),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.mlp.up_proj.weight": (256, 64),
    "model.layers.0.input_layernorm.weight": (64,),
}
LAYERS = 64 * 64 + 256 * 64
CONFIG = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
KV = 2 * 1 * 2 * 16 * 2


def test_a_token_reads_the_layers_the_head_and_the_cache() -> None:
    head = 1000 * 64
    assert read_per_token(SHAPES, CONFIG, "int8", 10) == LAYERS + head + 10 * KV
    untied = SHAPES | {"lm_head.weight": (1000, 64)}
    assert read_per_token(untied, CONFIG, "int8", 10) == LAYERS + head + 10 * KV
    assert read_per_token(SHAPES, CONFIG, "bf16", 0) == 2 * (LAYERS + head)
    assert read_per_token(SHAPES, CONFIG, "Q8_0", 0) == 34 / 32 * (LAYERS + head)


def test_positions_are_looked_up_and_only_chosen_experts_are_read() -> None:
    positions = SHAPES | {
        "transformer.wpe.weight": (512, 64),
        "model.embed_positions.weight": (512, 64),
    }
    assert read_per_token(positions, CONFIG, "int8", 0) == read_per_token(SHAPES, CONFIG, "int8", 0)
    experts = SHAPES | {
        f"model.layers.0.mlp.experts.{number}.up_proj.weight": (32, 64) for number in range(8)
    }
    chosen = CONFIG | {"num_local_experts": 8, "num_experts_per_tok": 2}
    assert (
        read_per_token(experts, chosen, "int8", 0) - read_per_token(SHAPES, chosen, "int8", 0)
        == 2 * 32 * 64
    )


def test_an_encoder_and_a_decoder_share_the_work_nobody_knows_how() -> None:
    assert read_per_token(SHAPES, CONFIG | {"is_encoder_decoder": True}, "int8", 10) == 0


# Contenders


def script(tmp_path: Path, body: str, label: str = "one", memory: int = 0) -> Competitor:
    """A process that is a few lines of Python: `load` in them returns its measures."""
    file = tmp_path / f"{label}.py"
    file.write_text(
        "import os, sys, time\n"
        "from llmchat.bench.peer_protocol import serve, timed\n"
        f"{body}\n"
        "serve(load)\n"
    )
    return Competitor(label, (sys.executable, str(file)), memory)


def steady(tps: float) -> str:
    return (
        "def load():\n"
        f"    return {{'decode': lambda: {{'tps': {tps}, 'tokens': 64}}, "
        "'prefill': lambda: {'tps': 9.0, 'tokens': 541}}"
    )


def test_a_contender_measures_what_it_is_asked_however_much_its_libraries_print(
    tmp_path: Path,
) -> None:
    noisy = (
        "def load():\n"
        "    os.system('echo from C')\n"
        "    print('loaded')\n"
        "    return {'decode': lambda: print('x') or 7}"
    )
    process = CompetitorProcess(script(tmp_path, noisy), os.environ)
    try:
        assert (process.ask("decode"), process.ask("decode")) == (7, 7)
        assert 1e6 < process.ask("peak") < 1e9
        assert 0 < process.load_s < process.age
    finally:
        process.close()


def test_contenders_may_work_before_they_are_measured(tmp_path: Path) -> None:
    counting = (
        "said = []\n"
        "def load():\n"
        "    return {'warm': lambda: said.append(time.sleep(0.01)), "
        "'decode': lambda: len(said), 'prefill': lambda: 1}"
    )
    measurements = Measurements()
    with started(
        [script(tmp_path, counting)], os.environ, measurements.fail, lambda what: None
    ) as processes:
        measure_in_turn(processes, 1, measurements, lambda what: None, warm_s=0.3)
    assert 5 < measurements.last("one", "decode") < 35 and not measurements.failures


def test_a_contender_wakes_before_it_is_measured(tmp_path: Path) -> None:
    counting = (
        "said = []\n"
        "def load():\n"
        "    return {'warm': lambda: said.append(1), "
        "'decode': lambda: len(said), 'first': lambda: len(said)}"
    )
    process = CompetitorProcess(script(tmp_path, counting), os.environ)
    try:
        assert [process.ask(what) for what in ("decode", "first", "decode")] == [1, 1, 2]
    finally:
        process.close()


@pytest.mark.parametrize(
    "body, told",
    [
        ("def load():\n    raise RuntimeError('no such\\nkernel')", "no such"),
        ("def load():\n    raise MemoryError", "MemoryError"),
        (
            "def load():\n"
            "    sys.stderr.write('terminate called\\n')\n"
            "    sys.stderr.flush()\n"
            "    os._exit(3)",
            "its process ended with code 3: terminate called",
        ),
        (
            "def load():\n"
            "    from llmchat.errors import OutOfResources\n"
            "    raise OutOfResources('too large', 'take a smaller one')",
            "too large",
        ),
    ],
    ids=["raises", "raises nothing to read", "dies", "raises an error of ours"],
)  # fmt: skip
def test_a_contender_that_cannot_load_says_why(body: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailed) as failure:
        CompetitorProcess(script(tmp_path, body), os.environ)
    assert failure.value.message == told
    if "too large" in told:
        assert (failure.value.exit_code, failure.value.hint) == (6, "take a smaller one")


def test_everyone_is_asked_in_turn_and_who_fails_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = f"def told(name):\n    open({str(log)!r}, 'a').write(name + ' ')\n    return 2.0\n"
    fails = (
        "def load():\n"
        "    return {'decode': lambda: told('b.decode'), "
        f"'prefill': lambda: told('b.prefill') / (len(open({str(log)!r}).read()) < 60)}}"
    )
    lasts = (
        "def load():\n"
        "    return {'decode': lambda: told('a.decode'), 'prefill': lambda: told('a.prefill')}"
    )
    measurements, on_step = Measurements(), list[str]()
    competitors = [script(tmp_path, told + lasts, "a"), script(tmp_path, told + fails, "b")]
    with started(competitors, os.environ, measurements.fail, on_step.append) as processes:
        measure_in_turn(processes, 3, measurements, on_step.append)
    assert log.read_text().split() == ["a.decode", "a.prefill", "b.decode", "b.prefill"] * 2 + [
        "a.decode",
        "a.prefill",
    ]
    assert measurements.failures["b"].message == "float division by zero"
    assert measurements.runs == {
        "a": {"decode": [2.0] * 3, "prefill": [2.0] * 3},
        "b": {"decode": [2.0] * 2, "prefill": [2.0]},
    }
    assert on_step[:3] == ["a: load", "b: load", "a: decode, round 1 of 3"]


def test_one_that_cannot_load_leaves_the_others(tmp_path: Path) -> None:
    measurements = Measurements()
    competitors = [
        script(tmp_path, "def load():\n    raise OSError('gone')", "a"),
        script(tmp_path, steady(5), "b"),
    ]
    with started(competitors, os.environ, measurements.fail, lambda what: None) as processes:
        measure_in_turn(processes, 1, measurements, lambda what: None)
    assert (
        measurements.failures["a"].message == "gone"
        and measurements.rate("b", "decode") == 5
        and measurements.rate("a", "decode") is None
    )


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_what_is_in_memory_together_fits(sizes: list[int], room: int) -> None:
    competitors = [Competitor(str(index), (), size) for index, size in enumerate(sizes)]
    found = batches(competitors, room)
    assert [competitor for batch in found for competitor in batch] == competitors
    assert all(
        len(batch) == 1 or sum(competitor.memory for competitor in batch) <= room for batch in found
    )
    # Nobody is left alone who would have fitted beside the ones before.
    assert all(
        sum(competitor.memory for competitor in batch) + after[0].memory > room
        for batch, after in pairwise(found)
    )


# Peers


def test_the_peers_script_runs_in_a_python_without_us(tmp_path: Path) -> None:
    tree = ast.parse(Path(peer_protocol.__file__).read_text("utf-8"))
    imported = {
        name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names
    }
    imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    done = subprocess.run(
        [sys.executable, "-I", "-S", peer_protocol.__file__],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout) == {}, "without site-packages nobody is installed"


@pytest.mark.slow
def test_transformers_as_a_peer_measures_the_same_tokens(tiny: Path) -> None:
    task = {
        "peer": "transformers bf16",
        "folder": str(tiny),
        "device": "cpu",
        "short": [5, 6, 7],
        "long": [5] * 100,
    }
    process = CompetitorProcess(
        Competitor(
            "peer", (sys.executable, peer_protocol.__file__, "serve"), task=json.dumps(task)
        ),
        os.environ,
    )
    try:
        assert process.ask("decode")["tokens"] == 64 and process.ask("prefill")["tokens"] == 100
    finally:
        process.close()


# The whole


def test_memory_is_read_at_a_rate_that_can_be() -> None:
    assert 1e8 < Memory("cpu", size=2**25).read_rate() < 1e13


def plan_of(*competitors: Competitor) -> bench.Plan:
    rows = [
        Row(competitor.label, "int8", ours=index == 0, bytes_per_token=1_000_000)
        for index, competitor in enumerate(competitors)
    ]
    return bench.Plan(
        "tiny",
        "cpu",
        10**9,
        tuple(zip(competitors, rows, strict=True)),
        ("fp32: too large",),
        {"processor": "a CPU", "cores": 2, "device": "cpu"},
        {},
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """The memory's speed told by a script instead of measured."""

    def told(body: str) -> None:
        monkeypatch.setattr(
            bench, "python_module", lambda *arguments: script(tmp_path, body, "memory").command
        )

    return told


def test_a_report_has_medians_shares_and_what_was_not_measured(
    quick: Callable[[str], None], tmp_path: Path
) -> None:
    quick("def load():\n    return {'bandwidth': lambda: 2e9}")
    slower = "rates = iter([{'tps': tps, 'tokens': 64} for tps in (100.0, 900.0, 300.0, 1.0)])\n"
    load = (
        "def load():\n"
        "    return {'decode': lambda: next(rates), "
        "'prefill': lambda: {'tps': 9.0, 'tokens': 541}}"
    )
    mine = script(tmp_path, slower + load, "mine")
    other = script(tmp_path, "def load():\n    raise OSError('broken')", "other")
    found = bench.measure(plan_of(mine, other), 3, make_world(tmp_path, **os.environ), quiet=True)
    first, second = found.rows
    assert (first.decode_tps, first.prefill_tps, first.bandwidth_share) == (300.0, 9.0, 0.15)
    assert first.runs == {"decode_tps": [100.0, 900.0, 300.0], "prefill_tps": [9.0] * 3}
    assert first.load_s and first.load_s < 5 and first.peak_bytes and first.peak_bytes > 1e6
    assert (second.decode_tps, second.error) == (None, "broken")
    plain = msgspec.to_builtins(found)
    speeds = {name: plain[name] for name in ("model", "decode_tps", "prefill_tps")}
    assert speeds == {"model": "tiny", "decode_tps": 300.0, "prefill_tps": 9.0}
    assert [row["engine"] for row in plain["rows"]] == ["mine", "other"]
    assert (
        found.skipped == ["fp32: too large", "other: broken"]
        and found.prompt_tokens == 541
        and not found.interrupted
    )


def test_an_interruption_keeps_what_was_measured(
    quick: Callable[[str], None], tmp_path: Path
) -> None:
    quick("def load():\n    return {'bandwidth': lambda: 2e9}")
    stops = (
        "import signal\n"
        "times = iter([0, 1])\n"
        "def decode():\n"
        "    if next(times):\n"
        "        os.kill(os.getppid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "    return {'tps': 5.0, 'tokens': 64}\n"
    )
    load = (
        "def load():\n    return {'decode': decode, 'prefill': lambda: {'tps': 9.0, 'tokens': 541}}"
    )
    mine = script(tmp_path, stops + load, "mine")
    found = bench.measure(plan_of(mine), 3, make_world(tmp_path, **os.environ), quiet=True)
    assert found.interrupted and found.rows[0].decode_tps == 5.0 and found.rows[0].load_s is None


def test_where_nothing_of_ours_can_be_measured_the_cause_is_the_error(
    quick: Callable[[str], None], tmp_path: Path
) -> None:
    quick("def load():\n    return {'bandwidth': lambda: 2e9}")
    body = (
        "def load():\n"
        "    from llmchat.errors import OutOfResources\n"
        "    raise OutOfResources('it is too large', 'a smaller one')"
    )
    with pytest.raises(MeasurementFailed, match="it is too large") as failure:
        bench.measure(
            plan_of(script(tmp_path, body, "mine"), script(tmp_path, steady(3), "other")),
            1,
            make_world(tmp_path, **os.environ),
            quiet=True,
        )
    assert (failure.value.exit_code, failure.value.hint) == (6, "a smaller one")


REPORT = Benchmark(
    model="tiny",
    machine={"device": "cpu", "processor": "a CPU", "cores": 2, "read_bytes_per_second": 47e9},
    date="2026-11-21", versions={"python": "3.11"}, rounds=3, prompt_tokens=541, decode_tokens=64,
    rows=[
        Row(
            "llmchat int8", "int8", True, 90.04, 1700.4, 0.817, 1.234, 1.5,
            480_000_000, 300_000_000, 140_000_000,
        ),
        Row("other", "int8", error="broken"),
    ],
    skipped=["other: broken"],
)  # fmt: skip


def test_the_table_outside_a_terminal(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    print_report(REPORT, world)
    assert world.stdout.getvalue() == (  # type: ignore[attr-defined]
        "tiny on cpu: a CPU, 2 cores, reads 47 GB/s\n"
        "64 tokens decoded, 541 prefilled; medians of 3 rounds\n\n"
        "engine\tdecode tok/s\tof bandwidth\tprefill tok/s\tload s\tfirst token s\tpeak memory\n"
        "llmchat int8\t90.0\t82 %\t1700\t1.23\t1.50\t480 MB\n"
        "other\t-\t-\t-\t-\t-\t-\n\n"
        "not measured: other: broken\n"
    )


def in_home(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "GOMP_SPINCOUNT": "5000"}
    return subprocess.run(
        [sys.executable, "-m", "llmchat", "bench", *arguments],
        capture_output=True,
        text=True,
        env=env,
    )


def test_the_command_measures_a_model(tiny: Path, tmp_path: Path) -> None:
    done = in_home(tmp_path, "-m", str(tiny), "--weights", "fp32", "--rounds", "1", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    plain: dict[str, Any] = json.loads(done.stdout)
    (row,) = plain["rows"]
    assert (
        row["engine"] == "llmchat fp32"
        and plain["decode_tps"] == row["decode_tps"] > 0
        and plain["prefill_tps"] > 0
    )
    assert plain["prompt_tokens"] > 541 and row["bandwidth_share"] > 0
    assert row["first_token_s"] > row["load_s"] > 0 and row["peak_bytes"] > 1e7


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (
            ["--weights", "int3"],
            2,
            "error: --weights cannot be int3\nhint: int8, int4, nf4, bf16, fp32 can be measured\n",
        ),
        (["-m", "smolm2"], 3, "error: no model is called `smolm2`\nhint: did you mean `smollm2`"),
        (
            ["--peers-python", "/nowhere/python"],
            2,
            "error: /nowhere/python is not a Python that can be run\n",
        ),
    ],
    ids=["kind", "model", "python"],
)
def test_a_mistake_is_told_before_anything_is_loaded(
    arguments: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["bench", *arguments]) == code
    assert capsys.readouterr().err.startswith(told)
