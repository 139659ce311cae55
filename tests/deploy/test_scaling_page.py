"""The numbers and commands of docs/scaling.md are what the code computes and understands."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from llmchat.cli import app
from llmchat.deploy.sizing import divides, room
from llmchat.memory_estimate import kv_bytes
from llmchat.presets import find

PAGE = (Path(__file__).parents[2] / "docs/scaling.md").read_text("utf-8")
# Config, parameters, window.
MODELS = {
    "7B": (
        {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096},
        6_738_415_616,
        2048,
    ),
    "13B": (
        {"num_hidden_layers": 40, "num_attention_heads": 40, "hidden_size": 5120},
        13_015_864_320,
        2048,
    ),
    "70B": (
        {
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "hidden_size": 8192,
        },
        68_976_648_192,
        4096,
    ),
}


@pytest.mark.parametrize("line", re.findall(r"^llmchat [^#\n]*", PAGE, re.M))
def test_every_command_is_understood(line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context("llmchat", words)
    for name in context.params["models"]:
        find(name)


def test_bytes_of_weights_and_tokens() -> None:
    rows = re.findall(
        r"^\| Ll[aA]MA? ?2? ?(\d+B).*\| ([\d.]+) GB \| ([\d,]+) B \| ([\d,]+) tokens: ([\d.]+) GB",
        PAGE,
        re.M | re.I,
    )
    assert [row[0] for row in rows] == list(MODELS)
    for name, weights, token, window, whole in rows:
        config, parameters, context = MODELS[name]
        assert f"{2 * parameters / 1e9:.1f}" == weights and int(token.replace(",", "")) == kv_bytes(
            config, 1
        )
        assert (
            int(window.replace(",", "")) == context
            and f"{kv_bytes(config, context) / 1e9:.2f}" == whole
        )


def test_windows_that_fit() -> None:
    rows = re.findall(r"^\| (\d) × (\d+) GB \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M)
    assert len(rows) == 9
    for gpus, memory, *counts in rows:
        for (config, parameters, context), count in zip(MODELS.values(), counts, strict=True):
            assert divides(int(gpus), config)
            assert room(int(gpus), 1, int(memory) * 1e9, 2 * parameters, config) // context == int(
                count
            ), (gpus, memory)


def test_requests_a_second() -> None:
    rows = re.findall(
        r"^\| (\d+B), (?:(\d) × )?(\w+)[^|]*\| (\d+) \| (\d+) ms \| (\d+) tokens/s "
        r"\| ([\d,]+) tokens/s \| (\d+) ms \| ([\d.]+) \|$",
        PAGE,
        re.M,
    )
    gpus = {"L4": (300e9, 121e12), "A100": (2039e9, 312e12), "H100": (3350e9, 989e12)}
    assert len(rows) == 4
    for name, number, gpu, chats, step_ms, one, everyone, read_ms, requests in rows:
        config, parameters, _ = MODELS[name]
        bandwidth, peak = (int(number or 1) * figure for figure in gpus[gpu])
        step = (2 * parameters + int(chats) * kv_bytes(config, 1000)) / (bandwidth * 0.6)
        reading = 2 * parameters * 500 / (peak * 0.5)
        told = [
            float(text.replace(",", "")) for text in (step_ms, one, everyone, read_ms, requests)
        ]
        exact = [
            step * 1e3,
            1 / step,
            int(chats) / step,
            reading * 1e3,
            1 / (250 * step / int(chats) + reading),
        ]
        assert told == [round(value, 1 if index == 4 else 0) for index, value in enumerate(exact)]
