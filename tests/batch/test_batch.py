"""Whole batches: their rows, their order, and runs that go on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.batches import scripted_work
from support.checkpoints import save_tiny
from support.command_line import LLMCHAT, Run

from llmchat.batches import Results, lines_of, run
from llmchat.batches.run import Outcome
from llmchat.engines import Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import NetworkError, UsageError
from llmchat.models.open_model import OpenModel
from llmchat.settings import World

Answer = Callable[..., Outcome]


def write(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def quoted(row: dict[str, Any]) -> str:
    """The question that the scripted engine quotes."""
    return str(row["text"].split("\n\n")[1].removeprefix("> "))


def prompts(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {number} " * (count - number)} for number in range(count)]


def test_each_line_has_one_row_in_order(answer: Answer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", prompts(30))
    outcome = answer(source, tmp_path / "out.jsonl")
    found = rows(tmp_path / "out.jsonl")
    assert [row["line"] for row in found] == list(range(1, 31))
    assert all(quoted(row).startswith(f"question {row['line'] - 1}") for row in found)
    assert outcome.rows == 30 and outcome.errors == 0
    assert outcome.tokens == sum(row["usage"]["completion_tokens"] for row in found)


def test_as_done_short_answers_come_first(answer: Answer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", prompts(8))
    answer(source, tmp_path / "out.jsonl", as_done=True)
    numbers = [row["line"] for row in rows(tmp_path / "out.jsonl")]
    assert sorted(numbers) == list(range(1, 9)) and numbers[0] > 1


def test_a_broken_line_has_a_row_and_stops_nothing(answer: Answer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "a"}, {"x": 1}, {"prompt": "b"}])
    outcome = answer(source, tmp_path / "out.jsonl")
    first, broken, last = rows(tmp_path / "out.jsonl")
    assert (quoted(first), quoted(last)) == ("a", "b")
    assert broken["error"]["message"].startswith("it has none of") and "text" not in broken
    assert outcome.errors == 1


def test_a_prompt_that_does_not_fit_is_an_error_of_its_line(answer: Answer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "word " * 5000}, {"prompt": "b"}])
    answer(source, tmp_path / "out.jsonl")
    long, short = rows(tmp_path / "out.jsonl")
    assert "tokens" in long["error"]["message"] and quoted(short) == "b"


def test_a_finished_run_is_not_made_again(answer: Answer, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(5)), tmp_path / "out.jsonl"
    answer(source, target)
    before = target.read_bytes()
    outcome = answer(source, target)
    assert (outcome.rows, outcome.kept) == (0, 5) and target.read_bytes() == before


def test_new_lines_are_answered_where_they_stand(answer: Answer, tmp_path: Path) -> None:
    first, second, third = prompts(3)
    target = tmp_path / "out.jsonl"
    answer(write(tmp_path / "in.jsonl", [first, third]), target)
    answer(write(tmp_path / "in.jsonl", [first, second, third]), target)
    assert [quoted(row).split()[1] for row in rows(target)] == ["0", "1", "2"]


# Answers a file and dies in the middle of writing a row.
_DIES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from support.batches import scripted_work
from support.worlds import make_world
from llmchat.batches import Results, lines_of, run
class Dies(Results):
    def write(self, number, row):
        if number == 7:
            os.write(self._file.fileno(), b'{"line": 7, "te')
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(number, row)
work, world = scripted_work(), make_world(Path(sys.argv[1]).parent)
run(work, lines_of(world, sys.argv[1]), Dies(Path(sys.argv[2]), work.fingerprint), world)
"""


def test_killed_in_a_row_nothing_is_twice_and_nothing_missing(
    answer: Answer, tmp_path: Path
) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(12)), tmp_path / "out.jsonl"
    tests = str(Path(__file__).parents[1])
    dying = subprocess.run([sys.executable, "-c", _DIES, str(source), str(target), tests])
    assert dying.returncode == -signal.SIGKILL and target.read_bytes().endswith(b'"te')
    before = target.read_bytes().count(b"\n")
    outcome = answer(source, target)
    assert 0 < before == outcome.kept and outcome.rows == 12 - before
    other = tmp_path / "other.jsonl"
    answer(source, other)
    assert target.read_bytes() == other.read_bytes()


def test_rows_of_other_settings_are_not_mixed(answer: Answer, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    answer(source, target)
    with pytest.raises(UsageError, match="other settings"):
        answer(source, target, seed=1)


@pytest.mark.parametrize("text", ["a diary\n", '{"a": 1}\n', "[]\n", "\n"])
def test_a_file_of_something_else_is_left_alone(answer: Answer, tmp_path: Path, text: str) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    target.write_text(text)
    with pytest.raises(UsageError, match="not a row of a batch"):
        answer(source, target)
    assert target.read_text() == text


@pytest.mark.parametrize("text", ["a diary without an end", '{"a": 1}', "["])
def test_the_last_line_of_something_else_is_left_alone(
    answer: Answer, tmp_path: Path, text: str
) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    target.write_text(text)
    with pytest.raises(UsageError, match="not the beginning of a row"):
        answer(source, target)
    assert target.read_text() == text


def test_a_device_is_refused_as_the_output() -> None:
    with pytest.raises(UsageError, match="is not a file"):
        Results(Path("/dev/null"), "r")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first = Results(tmp_path / "out.jsonl", "r")
    with pytest.raises(UsageError, match="another run"):
        Results(tmp_path / "out.jsonl", "r")
    first.close()
    Results(tmp_path / "out.jsonl", "r").close()


def test_requests_of_openai_are_answered_in_its_form(answer: Answer, tmp_path: Path) -> None:
    body = {"model": "gpt", "messages": [{"role": "user", "content": "one two three"}], "n": 2}
    source = write(tmp_path / "in.jsonl", [{"custom_id": "a", "body": body | {"max_tokens": 3}}])
    answer(source, tmp_path / "out.jsonl")
    (row,) = rows(tmp_path / "out.jsonl")
    assert row["custom_id"] == "a" and row["error"] is None
    assert row["response"]["status_code"] == 200
    choices = row["response"]["body"]["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert choices[0]["finish_reason"] == "length"
    assert row["response"]["body"]["usage"]["completion_tokens"] == 6


def test_several_answers_have_seeds_of_their_own(answer: Answer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", prompts(2))
    answer(source, tmp_path / "out.jsonl", answers=3, seed=7)
    seeds = [one["seed"] for row in rows(tmp_path / "out.jsonl") for one in row["answers"]]
    assert len(set(seeds)) == 6


def test_a_server_that_is_gone_ends_the_run_and_keeps_its_rows(
    world: World, tmp_path: Path
) -> None:
    source, target = write(tmp_path / "in.jsonl", prompts(6)), tmp_path / "out.jsonl"
    work = scripted_work(parallel=1)
    step, calls = work.opened.engine.step, []

    def fails(answers: Any) -> Any:
        calls.append(1)
        if len(calls) > 200:
            raise NetworkError("the server is gone")
        return step(answers)

    work.opened.engine.step = fails  # type: ignore[attr-defined]
    results = Results(target, work.fingerprint)
    with pytest.raises(NetworkError):
        run(work, lines_of(world, str(source)), results, world, quiet=True)
    results.close()
    assert 0 < len(rows(target)) < 6 and not any("error" in row for row in rows(target))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    base = save_tiny(tmp_path_factory.mktemp("base"))
    return TransformersEngine(base, weights="fp32", device="cpu")


def test_together_every_answer_is_what_it_is_alone(
    tiny: TransformersEngine, world: World, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": f"the fox {n}"} for n in range(9)])

    def texts(parallel: int) -> tuple[list[str], Outcome]:
        work = scripted_work(parallel=parallel)
        opened = OpenModel(work.opened.preset, tiny, {})
        sampling = Sampling(temperature=1.0, max_tokens=12, ignore_eos=True)
        work = type(work)(opened, sampling, parallel=parallel)
        results = Results(tmp_path / f"{parallel}.jsonl", work.fingerprint)
        outcome = run(work, lines_of(world, str(source)), results, world, quiet=True)
        results.close()
        return [row["text"] for row in rows(tmp_path / f"{parallel}.jsonl")], outcome

    together, outcome = texts(4)
    alone, _ = texts(1)
    assert together == alone and len(set(alone)) > 1 and outcome.tokens == 9 * 12


def test_the_command_answers_a_pipe(run: Run) -> None:
    done = run("batch", "-", "--engine", "scripted", "-q", stdin='"one"\n{"prompt": "two"}\n')
    assert done.returncode == 0, done.stderr
    assert [quoted(json.loads(line)) for line in done.stdout.splitlines()] == ["one", "two"]
    assert done.stderr == ""


_WITHOUT_SERVER = """
import sys
for name in ("fastapi", "prometheus_client", "starlette", "uvicorn"):
    sys.modules[name] = None
from llmchat.cli import main
sys.exit(main(["batch", "-", "--engine", "scripted", "-q"]))
"""


def test_it_needs_no_package_of_a_server(env: dict[str, str]) -> None:
    body = {"messages": [{"role": "user", "content": "one"}]}
    lines = json.dumps({"custom_id": "a", "body": body}) + '\n"two"\n'
    command = [sys.executable, "-c", _WITHOUT_SERVER]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_line_of_a_pipe_is_answered_before_the_next_one_comes(env: dict[str, str]) -> None:
    command = [*LLMCHAT, "batch", "-", "--engine", "scripted", "-q"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        assert process.stdin and process.stdout
        for text in ("one", "two"):
            process.stdin.write(f'"{text}"\n')
            process.stdin.flush()
            assert quoted(json.loads(process.stdout.readline())) == text
        process.stdin.close()
    assert process.returncode == 0


def test_a_named_pipe_is_read_once(env: dict[str, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    command = [*LLMCHAT, "batch", str(tmp_path / "in"), "--engine", "scripted", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        (tmp_path / "in").write_text('"one"\n"two"\n')
        assert process.stdout
        assert [quoted(json.loads(line)) for line in process.stdout] == ["one", "two"]


def test_the_command_says_how_it_went(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "a"}, 1])
    target = str(tmp_path / "out.jsonl")
    done = run("batch", str(source), "-o", target, "--engine", "scripted")
    assert done.returncode == 1 and done.stdout == ""
    assert "line 2: it is not a JSON object" in done.stderr
    assert "2 rows in" in done.stderr and "1 line without an answer" in done.stderr
    again = run("batch", str(source), "-o", target, "--engine", "scripted")
    assert again.returncode == 1 and "2 kept from before" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jsonl"], "there is no file nothing.jsonl"),
        (["-", "--template", "x"], "the template has no field"),
        (["-", "-o", "/nowhere/out.jsonl"], "/nowhere/out.jsonl cannot be written"),
    ],
)
def test_bad_flags_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    done = run("batch", *arguments, "--engine", "scripted", stdin='"a"')
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_the_answers_cannot_replace_the_questions(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", prompts(1))
    done = run("batch", str(source), "-o", str(source), "--engine", "scripted")
    assert done.returncode == 2 and len(rows(source)) == 1


@pytest.mark.slow
def test_answers_of_a_schema_are_parsed(smol: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "Ann is 31."}, {"text": "Bob is 7."}])
    done = smol(
        "batch", str(source), "--template", "{text} Who, and how old?", "--schema",
        "name, age int", "-m", "smollm2", "-q",
    )  # fmt: skip
    values = [json.loads(line)["value"] for line in done.stdout.splitlines()]
    assert [set(value) for value in values] == [{"name", "age"}] * 2
    assert all(isinstance(value["age"], int) for value in values)
