"""Which value wins, and what a wrong one says."""

from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.settings import Options, World, resolve
from llmchat.settings.sampling import SAMPLING_SETTINGS, Sampling


def config(world: World, text: str) -> None:
    world.config.mkdir(parents=True)
    (world.config / "config.toml").write_text(text)


def test_flag_before_variable_before_file_before_default(tmp_path: Path) -> None:
    world = make_world(tmp_path, LLMCHAT_TEMPERATURE="0.5", LLMCHAT_TOP_K="7")
    config(world, 'temperature = 0.1\ntop_k = 3\nmodel = "alpaca-7b"\nmax-tokens = 9\n')
    settings = resolve(world, {"temperature": 0.9, "seed": None})
    options = settings.options
    assert (
        options.temperature,
        options.top_k,
        options.model,
        options.max_tokens,
        options.seed,
    ) == (0.9, 7, "alpaca-7b", 9, None)
    origins = settings.origins
    file = str(world.config / "config.toml")
    assert (origins["temperature"], origins["top_k"], origins["model"], origins["seed"]) == (
        "flag",
        "LLMCHAT_TOP_K",
        file,
        "default",
    )


def test_every_option_has_a_variable(tmp_path: Path) -> None:
    numbers = {"context": "1", "turns": "2", "seed": "1", "think_budget": "1", "max_rounds": "3"}
    sampling = {name: str(getattr(Sampling(), name)) for name in SAMPLING_SETTINGS}
    texts = {"logit_bias": '{"5": -1}', "dry_sequence_breakers": '[":"]'}
    choices = {
        "think": "off",
        "weights": "bf16",
        "kv": "int8",
        "engine": "gguf",
        "policy": "refuse",
    }
    choices |= {"memory": "on", "plot": "text", "recall": "0", "gitignore": "0"}
    switches = ("offline", "no_log", "plain", "vi", "trust_remote_code", "allow_private")
    values = sampling | numbers | texts | choices | dict.fromkeys(switches, "1")
    every = {name: values.get(name, "x") for name in Options.__struct_fields__}
    settings = resolve(
        make_world(tmp_path, **{f"LLMCHAT_{name.upper()}": value for name, value in every.items()}),
        {},
    )
    assert all(origin == f"LLMCHAT_{name.upper()}" for name, origin in settings.origins.items())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("temprature = 1\n", "there is no option `temprature`"),
        (
            'temperature = "hot"\n',
            "config.toml: temperature must be a number from 0 to 5, not `hot`",
        ),
        ('weights = "int7"\n', "weights must be int8, int4, nf4, bf16 or fp32, not `int7`"),
        ("model = \n", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(world: World, text: str, line: str) -> None:
    config(world, text)
    with pytest.raises(UsageError, match=line):
        resolve(world, {})


def test_a_wrong_variable_names_itself(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="LLMCHAT_SEED must be a whole number of 0 or more, not `x`"
    ):
        resolve(make_world(tmp_path, LLMCHAT_SEED="x"), {})
    assert resolve(make_world(tmp_path, LLMCHAT_SEED=""), {}).options.seed is None


@pytest.mark.parametrize(
    ("tty", "env", "pretty"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
    ],
)
def test_when_colour_is_allowed(
    tty: bool, env: dict[str, str], pretty: bool, tmp_path: Path
) -> None:
    assert make_world(tmp_path, tty=tty, **env).pretty is pretty
