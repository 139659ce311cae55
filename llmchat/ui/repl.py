"""The REPL: read a line, run a command or print an answer, and continue after any error.

Knows no command and no key itself; see `slash`, `prompt_line` and `turn`.
"""

import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import LlmchatError, OutOfResources
from llmchat.models.opener import ModelOpener
from llmchat.plugins import fault_in
from llmchat.roles import Role
from llmchat.settings import World
from llmchat.ui import printing, prompt_line, recovery, transcript
from llmchat.ui.fact_proposals import offer_facts
from llmchat.ui.input_parser import ShellCommand, parse_input
from llmchat.ui.keys import QuickActionChosen
from llmchat.ui.message_sender import MessageSender
from llmchat.ui.prompt_line import PromptLine
from llmchat.ui.questions import confirmed
from llmchat.ui.quick_actions import QuickActions
from llmchat.ui.shell_escape import run_shell_command
from llmchat.ui.slash import LeaveRepl
from llmchat.ui.state import ReplState
from llmchat.ui.terminal_modes import restored_terminal
from llmchat.ui.turn import print_answer, run_turn


def run(
    chat: Chat,
    world: World,
    opener: ModelOpener,
    *,
    plain: bool = False,
    vi: bool = False,
    documents: Documents | None = None,
    role: Role | None = None,
) -> int:
    """Chat until the user leaves; returns the exit code."""
    with restored_terminal(world.stdin):
        return Repl(chat, world, opener, plain, vi, documents, role).loop()


class Repl:
    """Joins the state of a chat, the prompt line and the quick actions."""

    def __init__(
        self,
        chat: Chat,
        world: World,
        opener: ModelOpener,
        plain: bool = False,
        vi: bool = False,
        documents: Documents | None = None,
        role: Role | None = None,
    ):
        documents = documents or Documents(world)
        self.state = ReplState(chat, world, opener, documents, plain, role=role)
        documents.note = self.state.print_note
        self.actions = QuickActions(self.state.print)
        self.prompt_line = PromptLine(self.state, lambda: len(self.actions), vi=vi)
        self._sender = MessageSender(self.state)
        self._interrupted = False
        self.prompt_line.on_change(self.actions.withdraw)
        self.prompt_line.on_enter(self._sender.store)
        if isinstance(chat.engine, LoadingEngine):
            self.prompt_line.start_after_first_prompt(chat.engine)
        self.state.width = self.prompt_line.width
        self.state.edit_text = prompt_line.edit_text
        self.state.print_answer = partial(print_answer, self.state)
        if world.interactive:
            self.state.edit_line = prompt_line.edit_line
            self.state.confirm = partial(confirmed, self.state)

    def loop(self) -> int:
        """Read and act until the user leaves; returns the exit code."""
        state = self.state
        state.print_note(f"{state.chat.engine.describe()} · /help for commands, Ctrl-D leaves")
        if state.chat.conversation.spoken:
            transcript.print_last_exchange(state)
        try:
            while True:
                self._read_and_act()
        except (EOFError, LeaveRepl):
            self._offer_facts()
            return 0

    def _offer_facts(self) -> None:
        """Ctrl-C leaves at once."""
        with suppress(KeyboardInterrupt):
            offer_facts(self.state)

    def _read_and_act(self) -> None:
        try:
            line = self.prompt_line.read(self._sender.unsent)
        except KeyboardInterrupt:
            if self._interrupted:
                raise LeaveRepl from None
            self._interrupted = True
            self.state.print_note("press Ctrl-C again or Ctrl-D to leave")
        except QuickActionChosen as chosen:
            self._interrupted = False
            self.choose(chosen.number)
        else:
            self._interrupted = False
            self.take(line)

    def take(self, line: str) -> None:
        """Act on a line. An error is printed with the quick actions that may resolve it."""
        self.actions.withdraw()
        self._sender.forget_unsent()
        error = self._run(line)
        if note := self.state.chat.take_notice():
            self.state.print_note(f"note: {note}")
        if error is None:
            return
        self._print_error(error)
        # A question that failed is in the conversation already.
        again = line if line.lstrip().startswith("/") else "/regen"
        self.actions.offer(recovery.actions_for(error, self.state, lambda: self.take(again)))

    def choose(self, number: int) -> None:
        """Run the quick action with this number, counted from 1."""
        action = self.actions.take(number)
        try:
            action.run()
        except LlmchatError as error:
            self._print_error(error)

    def _run(self, line: str) -> LlmchatError | None:
        """Act on a line; returns the error that ended it."""
        try:
            self._act_on(line)
        except LeaveRepl:
            raise
        except KeyboardInterrupt:
            self.state.print_note("[stopped]")
        except Exception as error:  # no error may end the chat
            return _as_llmchat_error(error, self.state.world.env)
        return None

    def _act_on(self, line: str) -> None:
        parsed = parse_input(line, self.state.world.env)
        if isinstance(parsed, ShellCommand):
            run_shell_command(self.state, self.actions, parsed.command)
        elif isinstance(parsed, str):
            if parsed.strip():
                self._converse(line, parsed)
        else:
            command, arguments = parsed
            answer = command.run(self.state, arguments)
            if answer is not None:
                run_turn(self.state, answer)

    def _converse(self, line: str, text: str) -> None:
        """Ask, and then the further turns of the role, until one is stopped."""
        state, whole = self.state, run_turn(self.state, self._sender.answer(line, text))
        for number, turn in enumerate(turns := state.take_turns(), 2):
            if not whole:
                return state.print_note(f"[{len(turns) + 2 - number} of the role's turns skipped]")
            state.print_note(f"turn {number} of {len(turns) + 1}: {turn}")
            whole = run_turn(state, state.chat.send(turn))
        return None

    def _print_error(self, error: LlmchatError) -> None:
        printing.print_error(self.state.world, error, self.state.width())


def _as_llmchat_error(error: Exception, env: Mapping[str, str]) -> LlmchatError:
    if isinstance(error, LlmchatError):
        return error
    if isinstance(error, MemoryError):
        return OutOfResources(
            "memory ran out", "a smaller window, --weights int4 or a smaller model needs less"
        )
    if isinstance(error, OSError):
        return fault_in(error) or LlmchatError(str(error))
    if env.get("LLMCHAT_TRACEBACK"):
        traceback.print_exception(error)
    return fault_in(error) or LlmchatError(
        f"unexpected {type(error).__name__}: {error}",
        "this is a bug in llmchat; the chat continues",
    )
