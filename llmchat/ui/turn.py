"""One turn of the REPL: print an answer while it arrives, then the notes about it."""

from collections.abc import Generator
from contextlib import closing
from functools import partial

from llmchat.chat import Event
from llmchat.ui import status
from llmchat.ui.answer_display import AnswerDisplay
from llmchat.ui.code_blocks import answered_blocks
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.prefill_progress import PrefillProgress, on_interrupt
from llmchat.ui.renderer import Renderer, choose_renderer
from llmchat.ui.source_lines import print_sources
from llmchat.ui.state import ReplState
from llmchat.ui.terminal_modes import without_echo


def run_turn(state: ReplState, events: Generator[Event]) -> bool:
    """Print an answer and its notes; returns whether it was not stopped.

    Ctrl-C stops the answer and keeps the text so far.
    """
    world, chat = state.world, state.chat
    dropped_before = chat.window.dropped if chat.window else 0
    progress = PrefillProgress(world.stdout, world)
    display = AnswerDisplay(
        progress,
        partial(_renderer, state),
        DimmedSection(world, plain=state.plain),
        notice=state.print_tool_line,
        show_thinking=state.show_thinking,
    )
    stopped = False
    with closing(events), without_echo(world.stdin), on_interrupt(progress.stopping):
        try:
            display.show(events)
        except KeyboardInterrupt:
            stopped = True
        finally:
            display.finish()
    _print_notes(state, display, dropped_before, stopped=stopped)
    return not stopped


def _renderer(state: ReplState) -> Renderer:
    """Prints the next text; its code blocks are numbered after those of earlier messages."""
    first_block = len(answered_blocks(state.chat.conversation.messages)) + 1
    return choose_renderer(state.world, plain=state.plain, first=first_block)


def _print_notes(
    state: ReplState, display: AnswerDisplay, dropped_before: int, *, stopped: bool
) -> None:
    answered = bool(display.text)
    if note := status.ending_note(state.chat, stopped=stopped, answered=answered):
        state.print_note(note)
    elif display.ended and not answered:
        state.print_note("[the model gave an empty answer; /regen asks again]")
    print_sources(state.world, state.chat.sources.take(), state.width())
    if note := status.dropped_note(state.chat, dropped_before):
        state.print_note(note)
    for note in state.chat.tools.take_notes() if state.chat.tools else ():
        state.print_note(note)
    state.print("")


def print_answer(state: ReplState, text: str) -> None:
    """Print an answer that was given before, with the numbers its code blocks had."""
    first_block = _first_block_of(state, text)
    renderer = choose_renderer(state.world, plain=state.plain, first=first_block)
    renderer.feed(text)
    renderer.finish()
    state.print("")


def _first_block_of(state: ReplState, answer: str) -> int:
    """The number of an answer's first code block; 0 for a text that is not an answer."""
    messages = state.chat.conversation.messages
    positions = [
        index
        for index, message in enumerate(messages)
        if message.role == "assistant" and message.text == answer
    ]
    return len(answered_blocks(messages[: positions[-1]])) + 1 if positions else 0
