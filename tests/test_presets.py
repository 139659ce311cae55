"""Presets: each shipped file, a user's own, and options in place of a preset's values."""

from pathlib import Path

import pytest

from llmchat.errors import ModelNotFound, UsageError
from llmchat.presets import choose, find, formats, get_format, names
from llmchat.settings import Options


@pytest.mark.parametrize("name", names())
def test_every_preset_says_what_a_user_must_know(name: str) -> None:
    preset = find(name)
    assert preset.title and preset.licence != "unknown" and preset.notes and preset.parameters > 1e8
    assert preset.format.source and all(find(alias) == preset for alias in preset.aliases)


@pytest.mark.parametrize("name", formats())
def test_every_format_says_where_it_comes_from(name: str) -> None:
    assert get_format(name).source and (get_format(name).parts is not None or name == "template")


def test_models_are_named_by_preset_repo_folder_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("Alpaca-13B").name == "alpaca-lora-13b"
    assert (find("org/model").base.kind, find("org/model").base.repo) == ("hub", "org/model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("model", "./model", str(tmp_path / "model")):
        assert find(name).base.repo == str(tmp_path / "model") and find(name).base.kind == "path"
    assert find("some.gguf").base.kind == "path"


@pytest.mark.parametrize(
    ("name", "hint"), [("alpacca-13b", "`alpaca-13b`"), ("smolm2", "`smollm2`"), ("qqqqq", "`llmchat presets` lists the names")]
)
def test_an_unknown_name_gets_advice(name: str, hint: str) -> None:
    with pytest.raises(ModelNotFound, match=f"no model is called `{name}`") as refused:
        find(name)
    assert hint in refused.value.hint and refused.value.exit_code == 3


def own_preset(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    return folder


def test_a_users_preset_goes_first(tmp_path: Path) -> None:
    own = own_preset(tmp_path / "presets", 'format = "vicuna"\naliases = ["smollm2"]\n[base]\nkind = "hub"\nrepo = "me/mine"\n')
    assert find("mine", own).base.repo == "me/mine" == find("smollm2", own).base.repo
    assert "mine" in names(own) and "mine" not in names()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('format = "alpaka"\n[base]\nkind = "hub"\nrepo = "a/b"\n', "no prompt format is called `alpaka`"),
        ('colour = "red"\n[base]\nkind = "hub"\nrepo = "a/b"\n', "unknown field `colour`"),
        ('[base]\nkind = "ftp"\nrepo = "a/b"\n', r"Invalid enum value 'ftp' - at `\$\.base\.kind`"),
        ('[base]\nkind = "hub"\nrepo = "a/b"\n[sampling]\ntemperature = -1\n', r">= 0.*\$\.sampling\.temperature"),
        ("[base\n", "is not valid TOML"),
    ],
)
def test_a_wrong_preset_names_the_file_and_the_key(text: str, line: str, tmp_path: Path) -> None:
    own = own_preset(tmp_path / line[:4].strip("[`"), text)
    with pytest.raises(UsageError, match=line):
        find("mine", own)


def test_options_take_the_place_of_a_presets_values() -> None:
    options = Options(
        model="alpaca-13b",
        adapter="me/mine",
        base="llama-7b",
        format="vicuna",
        weights="bf16",
        context=512,
        policy="last-n",
        turns=2,
        temperature=0.0,
        top_k=5,
        system="Hi",
        revision="v1",
    )
    preset = choose(options)
    assert (preset.base.repo, preset.base.revision, [adapter.repo for adapter in preset.adapters]) == (
        "huggyllama/llama-7b",
        "v1",
        ["me/mine"],
    )
    assert (preset.format.name, preset.weights, preset.system) == ("vicuna", "bf16", "Hi")
    assert (preset.context.tokens, preset.context.policy, preset.context.turns) == (512, "last-n", 2)
    assert (preset.sampling.temperature, preset.sampling.top_k, preset.sampling.top_p) == (0.0, 5, find("alpaca-13b").sampling.top_p)
    assert choose(Options(model="alpaca-13b", adapter="none")).adapters == ()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options(temperature=-1.0), "`temperature` cannot be -1.0: expected `float` >= 0.0"),
        (Options(top_p=2.0), "`top_p` cannot be 2.0"),
        (Options(turns=0), "`turns` cannot be 0"),
        (Options(adapter="nowhere"), "`nowhere` is no adapter"),
        (Options(format="chatmll"), "no prompt format is called"),
    ],
)
def test_impossible_options_are_refused(options: Options, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        choose(options)


@pytest.mark.parametrize(
    ("text", "parts"), [("a/b", ("a/b", 1.0)), ("a/b:0.5", ("a/b", 0.5)), ("./x:2", ("./x", 2.0)), ("none", ("none", 1.0))]
)
def test_an_adapter_may_carry_a_scale(text: str, parts: tuple[str, float]) -> None:
    from llmchat.presets.override import split_scale

    assert split_scale(text) == parts
    assert choose(Options(adapter="org/name:0.25")).adapter_scale == 0.25 and choose(Options(adapter="off")).adapters == ()
    with pytest.raises(UsageError, match="a scale of 50 is too much"):
        split_scale("x:50")
