"""The bottom line and the short notes after an answer."""

from contextlib import suppress

from rich.cells import cell_len, set_cell_size

from llmchat.chat import Chat
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import LlmchatError, UsageError
from llmchat.formatting import counted

_SHORTEST_NAME = 10


def bottom_line(chat: Chat, width: int) -> str:
    """Model, window, what was dropped, speed of the last answer, as wide as the window.

    Where it is narrow the model's name is shortened first; then the last parts go.
    """
    parts = [chat.engine.describe()]
    if chat.window and (not isinstance(chat.engine, LoadingEngine) or chat.engine.ready):
        parts.append(
            f"{chat.window.tokens + (chat.finish.reply_tokens if chat.finish else 0):,}/{chat.window.limit:,} tokens"
        )
        if chat.window.dropped:
            parts.append(f"{chat.window.dropped} dropped")
        if summarised := sum(entry.fate == "summarised" for entry in chat.window.ledger):
            parts.append(f"{summarised} summarised")
    if chat.finish and chat.finish.reply_tokens:
        parts.append(f"{chat.finish.tokens_per_second:.1f} tok/s")
        parts.append(f"first {chat.finish.prefill_s:.2f} s")
    while len(parts) > 1 and _room_for_name(parts, width) < min(_SHORTEST_NAME, cell_len(parts[0])):
        parts.pop()
    parts[0] = cut(parts[0], max(_room_for_name(parts, width), 0))
    return set_cell_size(" " + " · ".join(parts), width)


def _room_for_name(parts: list[str], width: int) -> int:
    return width - 2 - sum(cell_len(part) + 3 for part in parts[1:])


def recount(chat: Chat) -> None:
    """Let the bottom line tell of the conversation as it is now, after it was changed without an answer."""
    chat.window = chat.finish = None
    if chat.conversation.spoken and (
        not isinstance(chat.engine, LoadingEngine) or chat.engine.ready
    ):
        with suppress(LlmchatError):
            chat.window = chat.look_ahead()


def ending_note(chat: Chat, *, stopped: bool, answered: bool) -> str:
    """Why an answer ended before its own end, and how to go on where that is possible; else nothing."""
    cut_off = answered and bool(chat.finish and chat.finish.reason == "length")
    if not stopped and not cut_off:
        return ""
    limit = chat.sampling.max_tokens
    reached = bool(limit and chat.finish and chat.finish.reply_tokens >= limit)
    why = (
        "stopped"
        if stopped
        else "cut off at max_tokens"
        if reached
        else "cut off: the context window is full"
    )
    return f"[{why}; /continue resumes it]" if answered and chat.resumable else f"[{why}]"


def dropped_note(chat: Chat, before: int) -> str:
    """A line when more messages than before were left out, else nothing."""
    window = chat.window
    if window is None or window.dropped <= before:
        return ""
    which = (
        "the oldest message was"
        if window.dropped == 1
        else f"the {window.dropped:,} oldest messages were"
    )
    return f"{which} not sent (window {window.limit:,} tokens); /context shows which"


def statistics(chat: Chat) -> list[str]:
    """Tokens and times of the last answer, in lines; /stats shows the same."""
    finish = chat.finish
    if finish is None:
        raise UsageError("there is no answer yet")
    return [
        f"prompt               {counted(finish.prompt_tokens, 'token')}, {finish.cached_tokens:,} of them cached",
        f"answer               {counted(finish.reply_tokens, 'token')}, ended by {finish.reason}",
        f"first token          {finish.prefill_s:.2f} s",
        f"speed                {finish.tokens_per_second:.1f} tokens/s",
        f"seed                 {finish.seed}",
    ]


def cut(text: str, width: int) -> str:
    """The text in at most `width` cells, an ellipsis where something is missing."""
    return (
        text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)).rstrip() + "…"
    )
