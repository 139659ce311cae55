"""What could be done about an error, each with one key."""

from collections.abc import Callable

from msgspec.structs import replace

from llmchat.errors import (
    ContextOverflow,
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NetworkError,
    OutOfResources,
)
from llmchat.models.loading import pulled_presets
from llmchat.ui.state import Offer, Talk

_SMALLEST_WINDOW = 256


def for_error(error: LlmchatError, talk: Talk, again: Callable[[], None]) -> list[Offer]:
    """The ways out of an error that are open in this chat now; `again` does what has failed once more."""
    if isinstance(error, OutOfResources) and "disk" in error.message:
        return [Offer("continue without saving", lambda: _without_saving(talk))]
    if isinstance(error, OutOfResources):
        return [
            *_smaller_window(talk),
            *_lighter_weights(talk),
            *_off_the_gpu(talk),
            *_smaller_model(talk),
        ]
    if isinstance(error, ContextOverflow):
        return (
            [Offer("remove the last message", talk.chat.undo)]
            if talk.chat.conversation.question >= 0
            else []
        )
    if isinstance(error, Mismatch | IntegrityError) and talk.chat.preset.adapters:
        return [Offer("continue without the adapter", lambda: _switch(talk, adapter="none"))]
    if isinstance(error, NetworkError):
        return [Offer("try again", again)]
    if isinstance(error, ModelNotFound) and not _usable(talk):
        return _smaller_model(talk)
    return []


def _usable(talk: Talk) -> bool:
    """Whether the chat has a model: the first may have failed to load."""
    try:
        return talk.chat.engine.context > 0
    except LlmchatError:
        return False


def _smaller_window(talk: Talk) -> list[Offer]:
    if not _usable(talk):
        return []
    held = talk.chat.engine.context
    smaller = min(talk.chat.preset.context.tokens or held, held) // 2
    if smaller < _SMALLEST_WINDOW:
        return []

    def take() -> None:
        talk.chat.preset = replace(
            talk.chat.preset, context=replace(talk.chat.preset.context, tokens=smaller)
        )
        talk.chat.engine.clear_cache()
        talk.say(f"the window is {smaller:,} tokens now; /regen retries")

    return [Offer(f"a window of {smaller:,} tokens", take)]


def _lighter_weights(talk: Talk) -> list[Offer]:
    lighter = {"fp32": "bf16", "bf16": "int8", "int8": "int4"}.get(talk.chat.preset.weights)
    return [Offer(f"{lighter} weights", lambda: _switch(talk, weights=lighter))] if lighter else []


def _off_the_gpu(talk: Talk) -> list[Offer]:
    return (
        [Offer("the same on the CPU", lambda: _switch(talk, device="cpu"))]
        if "cuda" in talk.chat.engine.describe()
        else []
    )


def _smaller_model(talk: Talk) -> list[Offer]:
    """The largest pulled model that is smaller than this one."""
    size = talk.chat.preset.parameters or float("inf")
    smaller = [
        preset
        for preset, _ in pulled_presets(talk.world)
        if 0 < preset.parameters < size and preset.name != talk.chat.preset.name
    ]
    if not smaller:
        return []
    name = max(smaller, key=lambda preset: preset.parameters).name
    return [Offer(f"{name} instead", lambda: _switch(talk, model=name))]


def _switch(talk: Talk, **changes: object) -> None:
    talk.switch(**changes)
    talk.say(
        f"{talk.chat.engine.describe()}; /regen retries"
        if talk.chat.conversation.question >= 0
        else talk.chat.engine.describe()
    )


def _without_saving(talk: Talk) -> None:
    """The chat so far, in memory from now on."""
    chat = talk.chat
    chat.stop_saving()
    unanswered = chat.conversation.messages and chat.conversation.messages[-1].role == "user"
    talk.say(
        f"nothing is saved from here on; earlier messages stay saved{'; /regen retries' if unanswered else ''}"
    )
