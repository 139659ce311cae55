"""evaluate and compare ask the server that --url names."""

import json
from pathlib import Path

import pytest
from support.openai_server import engine_app, serving

from llmchat.cli import main
from llmchat.engines.scripted import ScriptedEngine


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_evaluate_asks_the_server_of_a_url(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        json.dumps({"prompt": "What is the capital of France?", "answer": "Paris"}) + "\n"
    )
    engine = ScriptedEngine(["Paris"])
    with serving(engine_app(engine)) as (url, asked):
        code = main(["evaluate", "-m", "tiny", "--url", url, "--tasks", str(tasks), "--json", "-q"])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert engine.prompts and any("completions" in one.path for one in asked) and "tiny" in out


def test_compare_asks_the_server_of_a_url(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(engine_app(ScriptedEngine(["Paris, of course."]))) as (url, asked):
        code = main(
            [
                "compare",
                "-m",
                "tiny",
                "--url",
                url,
                "What is the capital of France?",
                "--json",
                "-q",
            ]
        )
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "Paris, of course." in out and any("completions" in one.path for one in asked)
