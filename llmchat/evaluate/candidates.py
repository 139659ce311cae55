"""Load the models of a command line one after another; at most one is in memory at a time.

A name on the command line is what `-m` takes, with an adapter if you like: NAME, NAME+ADAPTER,
NAME+ADAPTER:0.5, or NAME:off, without the preset's adapters.
"""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Engine, Finish, Sampling
from llmchat.engines.checkpoint_files import special_names
from llmchat.errors import UsageError
from llmchat.models.locate import locate, provenance
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener, preset_of
from llmchat.presets import Preset
from llmchat.reply import reply
from llmchat.reply_parser import Thinking
from llmchat.settings import World
from llmchat.window import Window

_Answer = TypeVar("_Answer")


class Candidate(Struct, frozen=True):
    """A model whose files are on this machine.

    label: its name on the command line; opening: special tokens that can precede a plain text.
    """

    label: str
    flags: dict[str, Any]
    preset: Preset
    made_by: dict[str, Any]
    opening: tuple[str, ...] = ()


def find_candidates(
    words: Sequence[str], flags: Mapping[str, Any], world: World
) -> list[Candidate]:
    """Find the models, with the same `flags` for all. Loads nothing, to report errors at once."""
    twice = next((word for word in words if words.count(word) > 1), None)
    if twice:
        raise UsageError(f"{twice} is named twice")
    return [_find(word, flags, world) for word in words]


def split_word(word: str) -> tuple[str, str | None]:
    """Split a name into model and adapter; None: the preset's own adapters.

    `a+b:0.5` → a, b:0.5; `a:off` → a, none; `a` → a, None. A folder's name may contain a `+`.
    """
    if Path(word).expanduser().exists():
        return word, None
    if word.endswith(":off"):
        return word.removesuffix(":off"), "none"
    name, plus, adapter = word.partition("+")
    if plus and not (name and adapter):
        raise UsageError(
            f"`{word}` does not name a model", "NAME, NAME+ADAPTER, NAME+ADAPTER:0.5 or NAME:off"
        )
    return name, adapter or None


def with_model(
    candidate: Candidate, world: World, work: Callable[[OpenModel], _Answer], *, quiet: bool = False
) -> _Answer:
    """Load the model, call `work` with it, and free its memory before returning.

    `work` must keep no reference to the model.
    """
    opened = ModelOpener(world, candidate.flags).open(waiting=not quiet)
    try:
        return work(opened)
    finally:
        opened.engine.unload()
        del opened
        _free()


class FullAnswer(Struct, frozen=True):
    """A complete answer, with what was sent and how it ended."""

    text: str
    thinking: str
    finish: Finish
    window: Window


def answer(
    conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling
) -> FullAnswer:
    """Answer a conversation completely; a missing system text is the preset's."""
    text = thinking = ""
    for event in reply(with_system(conversation, preset), preset, engine, sampling):
        if isinstance(event, Chunk):
            text += event.text
        elif isinstance(event, Thinking):
            thinking += event.text
        elif isinstance(event, Finish):
            finish = event
        elif isinstance(event, Window):
            window = event
    return FullAnswer(text, thinking, finish, window)


def with_system(conversation: Conversation, preset: Preset) -> Conversation:
    """Add the preset's system text to a conversation without one."""
    if not preset.system or conversation.system:
        return conversation
    return Conversation((Message("system", preset.system), *conversation.messages))


def _find(word: str, flags: Mapping[str, Any], world: World) -> Candidate:
    name, adapter = split_word(word)
    own = {**flags, "model": name, **({"adapter": adapter} if adapter else {})}
    model = locate(preset_of(world, **own), world)
    names = special_names(model.base.path) if model.base else {}
    opening = tuple(names[mark] for mark in ("bos_token", "eos_token") if names.get(mark))
    return Candidate(word, own, model.preset, provenance(model), opening)


def _free() -> None:
    # torch's models have reference cycles: without a collection this one would stay in memory.
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
