"""`llmchat config set` and `unset`: one key changes, the rest of the file stays."""

import tomllib
from pathlib import Path

import pytest

from llmchat.cli import main
from llmchat.errors import UsageError
from llmchat.settings import World, resolve
from llmchat.settings.config_file import set_key, unset_key

FILE = """# my settings
max-tokens = 9   # short answers
model = "smollm2"

weights = "bf16"
"""


def written(world: World, text: str | None = None) -> Path:
    path = world.config / "config.toml"
    if text is not None:
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return path


def test_a_key_changes_and_the_rest_stays(world: World) -> None:
    path = written(world, FILE)
    set_key(world, "max-tokens", "20")
    assert path.read_text() == FILE.replace("= 9 ", "= 20 ")
    set_key(world, "max_tokens", "30")
    set_key(world, "top-p", "0.5")
    assert "max-tokens = 30   # short answers" in path.read_text()
    assert tomllib.loads(path.read_text()) == {
        "max-tokens": 30,
        "model": "smollm2",
        "weights": "bf16",
        "top_p": 0.5,
    }
    assert unset_key(world, "max_tokens") and not unset_key(world, "max_tokens")
    assert path.read_text().startswith("# my settings\nmodel")


def test_a_file_is_begun_and_read_back(world: World) -> None:
    for key, value in (
        ("temperature", "0"),
        ("offline", "true"),
        ("system", 'Say "hi"\nand\\bye'),
        ("seed", "7"),
    ):
        set_key(world, key, value)
    options = resolve(world, {}).options
    assert (options.temperature, options.offline, options.system, options.seed) == (
        0.0,
        True,
        'Say "hi"\nand\\bye',
        7,
    )


@pytest.mark.parametrize(
    ("key", "value", "line", "hint"),
    [
        ("weights", "int7", "weights must be int8, int4, nf4, bf16 or fp32, not `int7`", ""),
        ("temperature", "-1", "temperature must be a number from 0 to 5, not `-1`", ""),
        ("offline", "maybe", "offline must be true or false, not `maybe`", ""),
        (
            "seed",
            "null",
            "seed must be a whole number of 0 or more, not `null`",
            "`llmchat config unset seed` removes it",
        ),
        ("tempratur", "1", "there is no option `tempratur`", "did you mean `temperature`?"),
        ("turns", "9" * 100, f"turns must be a whole number of 1 or more, not `{'9' * 39}…`", ""),
    ],
)
def test_a_wrong_key_or_value_changes_nothing(
    world: World, key: str, value: str, line: str, hint: str
) -> None:
    path = written(world, FILE)
    with pytest.raises(UsageError) as error:
        set_key(world, key, value)
    assert error.value.message == line and hint in error.value.hint and path.read_text() == FILE


def test_a_broken_file_is_left_alone(world: World) -> None:
    path = written(world, "model = \n")
    with pytest.raises(UsageError, match="is not valid TOML"):
        set_key(world, "seed", "1")
    assert path.read_text() == "model = \n"


def test_a_link_to_a_file_stays_one(world: World, tmp_path: Path) -> None:
    path = written(world, "")
    (tmp_path / "dotfile").write_text(FILE)
    path.unlink()
    path.symlink_to(tmp_path / "dotfile")
    set_key(world, "seed", "1")
    assert path.is_symlink() and "seed = 1" in (tmp_path / "dotfile").read_text()


def test_a_file_keeps_its_mode(world: World) -> None:
    path = written(world, "seed = 1\n")
    path.chmod(0o600)
    set_key(world, "seed", "2")
    assert path.read_text() == "seed = 2\n" and path.stat().st_mode & 0o777 == 0o600


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "llmchat/config.toml"
    assert main(["config", "set", "top-k", "5"]) == 0 and path.read_text() == "top_k = 5\n"
    assert main(["config", "set", "temperature", "-1"]) == 2
    assert main(["config", "unset", "top-k"]) == 0 and path.read_text() == ""
    assert capsys.readouterr().err.splitlines() == [
        f"top_k = 5 in {path}",
        "error: temperature must be a number from 0 to 5, not `-1`",
        f"top-k removed from {path}",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--temperature", "hot"], "--temperature must be a number from 0 to 5, not `hot`"),
        (["--top-p", "0"], "--top-p must be a number above 0, up to 1, not `0`"),
        (["--context", "many"], "--context must be a whole number of 0 or more, not `many`"),
        (
            ["--policy", "never"],
            "--policy must be drop-oldest, last-n, summary or refuse, not `never`",
        ),
        (["--engine", "vlm"], "--engine must be transformers, gguf, openai or scripted, not `vlm`"),
    ],
)
def test_a_flag_is_refused_in_the_same_words(
    arguments: list[str],
    line: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.config))
    assert main(["chat", *arguments, "x"]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
