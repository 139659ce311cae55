"""`llmchat config show`: the options of a role, and their origin."""

import json
from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.cli import main


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "roles"
    folder.mkdir(parents=True)
    (folder / "terse.toml").write_text(
        'system = "Be $how."\nmodel = "alpaca-7b"\n[values]\nhow = "brief"\n'
        "[sampling]\ntemperature = 0.25\n"
    )
    (folder / "lacks.toml").write_text('system = "Be $how."\n')
    return tmp_path


def shown(home: Path, *arguments: str, **env: str) -> tuple[dict[str, tuple[object, str]], str]:
    """Value and origin of each option, and what is on stderr."""
    world = make_world(home, **env)
    code = main(["config", "show", "--origin", "--json", *arguments], world)
    error = world.stderr.getvalue()  # type: ignore[attr-defined]
    if code:
        return {}, error
    rows = json.loads(world.stdout.getvalue())  # type: ignore[attr-defined]
    return {row["name"]: (row.get("value"), row["origin"]) for row in rows}, error


def test_values_of_a_role_have_it_as_their_origin(home: Path) -> None:
    found, _ = shown(home, LLMCHAT_ROLE="terse how=curt", LLMCHAT_TEMPERATURE="1")
    assert found["role"] == ("terse how=curt", "LLMCHAT_ROLE")
    assert found["system"] == ("Be curt.", "role terse")
    assert found["temperature"] == (0.25, "role terse")
    assert found["model"] == ("alpaca-7b", "role terse")
    assert found["top_k"][1] == "default"


def test_role_flag_goes_before_the_variable(home: Path) -> None:
    found, _ = shown(home, "--role", "terse", LLMCHAT_ROLE="translate language=French")
    assert found["role"] == ("terse", "flag") and found["system"] == ("Be brief.", "role terse")
    found, _ = shown(home, "--role", "off", LLMCHAT_ROLE="terse", LLMCHAT_TEMPERATURE="1")
    assert found["temperature"] == (1.0, "LLMCHAT_TEMPERATURE")


def test_unusable_role_is_noted_and_the_options_are_shown_without_it(home: Path) -> None:
    found, error = shown(home, LLMCHAT_ROLE="lacks", LLMCHAT_TEMPERATURE="1")
    assert found["temperature"] == (1.0, "LLMCHAT_TEMPERATURE")
    assert error == (
        "note: the role of LLMCHAT_ROLE is not used: the role `lacks` requires a value for how\n"
    )
    assert shown(home, "--role", "nosuch")[1].startswith("error: there is no role `nosuch`\n")
