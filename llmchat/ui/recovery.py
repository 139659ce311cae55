"""Quick actions that may resolve an error."""

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
from llmchat.models.locate import pulled_presets
from llmchat.ui.quick_actions import QuickAction
from llmchat.ui.state import ReplState

_SMALLEST_WINDOW = 256
_LIGHTER_WEIGHTS = {"fp32": "bf16", "bf16": "int8", "int8": "int4"}


def actions_for(
    error: LlmchatError, state: ReplState, again: Callable[[], None]
) -> list[QuickAction]:
    """The actions that fit an error in this chat; `again` repeats what failed."""
    if isinstance(error, OutOfResources):
        return _out_of_disk(state) if "disk" in error.message else _out_of_memory(state)
    if isinstance(error, ContextOverflow) and state.chat.conversation.question >= 0:
        return [QuickAction("remove the last message", state.chat.undo)]
    if isinstance(error, Mismatch | IntegrityError) and state.chat.preset.adapters:
        return [QuickAction("continue without the adapter", lambda: _switch(state, adapter="none"))]
    if isinstance(error, NetworkError):
        return [QuickAction("try again", again)]
    if isinstance(error, ModelNotFound) and not _is_usable(state):
        return _smaller_model(state)
    return []


def _out_of_disk(state: ReplState) -> list[QuickAction]:
    return [QuickAction("continue without saving", lambda: _stop_saving(state))]


def _out_of_memory(state: ReplState) -> list[QuickAction]:
    return [
        *_smaller_window(state),
        *_lighter_weights(state),
        *_off_the_gpu(state),
        *_smaller_model(state),
    ]


def _is_usable(state: ReplState) -> bool:
    """Whether the chat has a model; its first one may have failed to load."""
    try:
        return state.chat.engine.context > 0
    except LlmchatError:
        return False


def _smaller_window(state: ReplState) -> list[QuickAction]:
    if not _is_usable(state):
        return []
    context = state.chat.engine.context
    tokens = min(state.chat.preset.context.tokens or context, context) // 2
    if tokens < _SMALLEST_WINDOW:
        return []
    return [QuickAction(f"a window of {tokens:,} tokens", lambda: _set_window(state, tokens))]


def _set_window(state: ReplState, tokens: int) -> None:
    preset = state.chat.preset
    state.chat.preset = replace(preset, context=replace(preset.context, tokens=tokens))
    state.chat.engine.clear_cache()
    state.print(f"the window is now {tokens:,} tokens; /regen retries")


def _lighter_weights(state: ReplState) -> list[QuickAction]:
    lighter = _LIGHTER_WEIGHTS.get(state.chat.preset.weights)
    if lighter is None:
        return []
    return [QuickAction(f"{lighter} weights", lambda: _switch(state, weights=lighter))]


def _off_the_gpu(state: ReplState) -> list[QuickAction]:
    if "cuda" not in state.chat.engine.describe():
        return []
    return [QuickAction("the same on the CPU", lambda: _switch(state, device="cpu"))]


def _smaller_model(state: ReplState) -> list[QuickAction]:
    """Switch to the largest pulled model that is smaller than this one."""
    current = state.chat.preset
    smaller = [
        preset
        for preset, _ in pulled_presets(state.world)
        if 0 < preset.parameters < (current.parameters or float("inf"))
        and preset.name != current.name
    ]
    if not smaller:
        return []
    name = max(smaller, key=lambda preset: preset.parameters).name
    return [QuickAction(f"{name} instead", lambda: _switch(state, model=name))]


def _switch(state: ReplState, **changes: object) -> None:
    state.switch(**changes)
    retry = "; /regen retries" if state.chat.conversation.question >= 0 else ""
    state.print(state.chat.engine.describe() + retry)


def _stop_saving(state: ReplState) -> None:
    """Keep the chat in memory from now on."""
    state.chat.stop_saving()
    messages = state.chat.conversation.messages
    retry = "; /regen retries" if messages and messages[-1].role == "user" else ""
    state.print(f"this chat is no longer saved; earlier messages stay saved{retry}")
