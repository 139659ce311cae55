"""The bottom line of the REPL, and the notes after an answer."""

import shlex
from contextlib import suppress
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from llmchat.chat import Chat
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import LlmchatError, UsageError
from llmchat.output.formatting import counted

_SHORTEST_NAME = 10


def bottom_line(chat: Chat, width: int) -> str:
    """Model, window, dropped messages and speed of the last answer, `width` cells wide.

    A narrow line shortens the model's name first, then leaves out the last parts.
    """
    parts = [chat.engine.describe(), *_form(chat), *_window_parts(chat), *_speed_parts(chat)]
    while len(parts) > 1 and _room_for_name(parts, width) < min(_SHORTEST_NAME, cell_len(parts[0])):
        parts.pop()
    parts[0] = cut(parts[0], max(_room_for_name(parts, width), 0))
    return set_cell_size(" " + " · ".join(parts), width)


def _form(chat: Chat) -> list[str]:
    """The name of the role and the kind of structure of the answers, as far as they have one."""
    role = [Path(shlex.split(chat.role)[0]).stem] if chat.role else []
    return [*role, chat.sampling.structure.kind] if chat.sampling.structure else role


def _window_parts(chat: Chat) -> list[str]:
    window = chat.window
    if not window or not _is_loaded(chat):
        return []
    used = window.tokens + (chat.finish.reply_tokens if chat.finish else 0)
    parts = [f"{used:,}/{window.limit:,} tokens"]
    if window.dropped:
        parts.append(f"{window.dropped} dropped")
    if summarised := sum(entry.fate == "summarised" for entry in window.ledger):
        parts.append(f"{summarised} summarised")
    return parts


def _speed_parts(chat: Chat) -> list[str]:
    finish = chat.finish
    if not finish or not finish.reply_tokens:
        return []
    return [f"{finish.tokens_per_second:.1f} tok/s", f"first {finish.prefill_s:.2f} s"]


def _is_loaded(chat: Chat) -> bool:
    return not isinstance(chat.engine, LoadingEngine) or chat.engine.ready


def _room_for_name(parts: list[str], width: int) -> int:
    return width - 2 - sum(cell_len(part) + 3 for part in parts[1:])


def recount(chat: Chat) -> None:
    """Count the window again, after the conversation was changed without an answer."""
    chat.window = chat.finish = None
    if chat.conversation.spoken and _is_loaded(chat):
        with suppress(LlmchatError):
            chat.window = chat.next_window()


def ending_note(chat: Chat, *, stopped: bool, answered: bool) -> str:
    """Why an answer is incomplete, and whether it can be continued; empty if it is complete."""
    finish = chat.finish
    cut_off = answered and bool(finish and finish.reason == "length")
    if not stopped and not cut_off:
        return ""
    limit = chat.sampling.max_tokens
    if stopped:
        reason = "stopped"
    elif limit and finish and finish.reply_tokens >= limit:
        reason = "cut off at max_tokens"
    else:
        reason = "cut off: the context window is full"
    return f"[{reason}; /continue resumes it]" if answered and chat.resumable else f"[{reason}]"


def dropped_note(chat: Chat, before: int) -> str:
    """A note if more messages than before were left out of the window, else empty."""
    window = chat.window
    if window is None or window.dropped <= before:
        return ""
    if window.dropped == 1:
        messages = "the oldest message was"
    else:
        messages = f"the {window.dropped:,} oldest messages were"
    return f"{messages} not sent (window {window.limit:,} tokens); /context shows which"


def statistics(chat: Chat) -> list[str]:
    """Tokens and times of the last answer, as /stats prints them."""
    finish = chat.finish
    if finish is None:
        raise UsageError("there is no answer yet")
    prompt = counted(finish.prompt_tokens, "token")
    answer = counted(finish.reply_tokens, "token")
    return [
        f"prompt               {prompt}, {finish.cached_tokens:,} of them cached",
        f"answer               {answer}, finish reason {finish.reason}",
        f"first token          {finish.prefill_s:.2f} s",
        f"speed                {finish.tokens_per_second:.1f} tokens/s",
        f"seed                 {finish.seed}",
    ]


def cut(text: str, width: int) -> str:
    """Shorten a text to `width` cells, with an ellipsis if something is cut off."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…"
