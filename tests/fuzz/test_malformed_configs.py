"""Hostile config.json files and tensors of every family that has a plan: each is refused in one
line, or is a plan whose tensors have the shapes that the executors trust.
"""

import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from support.family_lists import PLANNED
from support.hostile_configs import Variant, shapes_near, variants
from support.tiny_checkpoints import random_model
from support.tiny_families import CASES

from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.check import bind
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import LlmchatError

FAST, SECONDS = 40, 5
ORDINARY = [name for name in PLANNED if ":" not in name]


@contextmanager
def limited(what: str) -> Iterator[None]:
    """Absurd sizes are refused before they cost time (of the processor) or memory."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what}: took more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def config_of(name: str) -> dict[str, Any]:
    """The config.json of a case."""
    return dict(json.loads(json.dumps(CASES[name].config().to_dict())))


def tensors_of(name: str) -> MemoryTensors:
    """Its tensors, as transformers names them in memory."""
    return MemoryTensors(random_model(CASES[name].config(), 0).state_dict())


def planned(config: dict[str, Any], tensors: MemoryTensors) -> Plan | None:
    """What loading does before an executor sees the tensors."""
    config = modern_config(config)
    plan = plan_of(config)
    return bind(plan, viewed(config, tensors).shapes) if plan else None


def refused_or_planned(what: str, config: dict[str, Any], tensors: MemoryTensors) -> bool:
    """Whether there is a plan; anything but an error of one line fails the test."""
    try:
        with limited(what):
            return planned(config, tensors) is not None
    except LlmchatError as error:
        assert "\n" not in error.message and len(error.message) < 300, what
        return False


def sampled(items: list[Any], count: int | None, seed: str) -> list[Any]:
    if count is None or count >= len(items):
        return items
    return random.Random(seed).sample(items, count)


def try_configs(name: str, count: int | None) -> None:
    config, tensors = config_of(name), tensors_of(name)
    assert planned(config, tensors)
    every: list[Variant] = list(variants(config))
    for what, changed in sampled(every, count, name):
        refused_or_planned(f"{name}: {what}", changed, tensors)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without dimensions of 1, which some checkpoints have and others do not."""
    return tuple(size for size in shape if size != 1)


def try_shapes(name: str, count: int | None) -> None:
    """Each tensor in another shape; only those that a plan does not read may have any."""
    config, tensors = config_of(name), tensors_of(name)
    every = [(key, shape) for key, own in tensors.shapes.items() for shape in shapes_near(own)]
    for key, shape in sampled(every, count, name):
        wrong = MemoryTensors(dict(tensors._state))
        if squeezed(shape) == squeezed(wrong.shapes[key]):
            continue
        if "attn" in key and "norm" in key and shape > wrong.shapes[key]:
            # Norms of heads have the numbers of one head, or those of all heads.
            continue
        wrong.shapes[key] = shape
        if refused_or_planned(f"{name}: {key} {shape}", config, wrong):
            del wrong.shapes[key]
            unread = refused_or_planned(f"{name}: no {key}", config, wrong)
            assert unread, f"{name}: {key} may have the shape {shape}"


@pytest.mark.parametrize("name", ORDINARY)
def test_a_sample_of_hostile_configs_is_refused_in_one_line(name: str) -> None:
    try_configs(name, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_every_hostile_config_is_refused_in_one_line(name: str) -> None:
    try_configs(name, None)


@pytest.mark.parametrize("name", ORDINARY)
def test_a_sample_of_wrong_shapes_is_refused_in_one_line(name: str) -> None:
    try_shapes(name, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_every_wrong_shape_is_refused_in_one_line(name: str) -> None:
    try_shapes(name, None)
