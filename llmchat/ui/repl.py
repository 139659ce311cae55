"""The conversation at the terminal: read a line, do a command or stream an answer, and go on whatever happens."""

import traceback
from collections.abc import Generator, Mapping
from contextlib import closing, suppress

import click
from msgspec import Struct
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from llmchat.chat import Chat, Event, Summary
from llmchat.engines import Chunk, Finish, Prefill
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import LlmchatError, OutOfResources, UsageError
from llmchat.formatting import counted
from llmchat.models.opener import Opener
from llmchat.process.programs import which
from llmchat.reply_parser import Thought
from llmchat.settings import World, private_file
from llmchat.terminal_text import fit_for
from llmchat.ui import notes, paste_parser, recap, recovery, shell, status
from llmchat.ui.code_blocks import answered_blocks
from llmchat.ui.keys import (
    Chosen,
    CommandCompleter,
    bindings,
    kept_terminal,
    without_block,
    without_echo,
)
from llmchat.ui.mentions import mentioned
from llmchat.ui.pastes import Pastes, WholeLines
from llmchat.ui.plain import choose_renderer
from llmchat.ui.prefill_progress import ReadingLine, told_of_interrupts
from llmchat.ui.render import Aside
from llmchat.ui.slash import Command, Leave, parse, registry
from llmchat.ui.state import Offer, Talk


def run(chat: Chat, world: World, opener: Opener, *, plain: bool = False, vi: bool = False) -> int:
    """Talk until the user leaves; returns the exit code."""
    with kept_terminal(world.stdin):
        return Repl(chat, world, opener, plain, vi).loop()


class _Typed(FileHistory):
    """The lines of earlier chats. That one cannot be kept, on a full disk, must not end the chat."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


class Repl:
    """The loop around the state that commands see and change."""

    def __init__(
        self, chat: Chat, world: World, opener: Opener, plain: bool = False, vi: bool = False
    ):
        self.talk = Talk(chat, world, opener, plain)
        self._vi = vi
        self._ways: list[Offer] = []
        self._pastes = Pastes(self._count)
        self._unsent = ""
        self._session = self._prompt_session()
        paste_parser.use(self._session.app.input)
        self._session.default_buffer.on_text_changed += self._withdraw_offers
        self._sent: tuple[str, Generator[Event] | LlmchatError] | None = None
        self._send_before_the_echo()
        if isinstance(chat.engine, LoadingEngine):
            self._load_behind_the_typing(chat.engine)
        self._interrupted = False
        self.talk.width = lambda: self._session.output.get_size().columns
        self.talk.edit_line = self._edit_line
        self.talk.edit_text = self._edit_text
        self.talk.show = self._show

    def loop(self) -> int:
        talk = self.talk
        talk.note(f"{talk.chat.engine.describe()} · /help for commands, Ctrl-D leaves")
        if talk.chat.conversation.spoken:
            recap.last_exchange(talk)
        while True:
            try:
                line = self._session.prompt(default=self._unsent)
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if self._interrupted:
                    return 0
                self._interrupted = True
                talk.note("press Ctrl-C again or Ctrl-D to leave")
                continue
            except Chosen as chosen:
                self._interrupted = False
                self.choose(chosen.number)
                continue
            self._interrupted = False
            try:
                self.take(line)
            except Leave:
                return 0

    def _load_behind_the_typing(self, engine: LoadingEngine) -> None:
        """Begin when the first prompt is on the screen: importing torch holds up everything else. The status line tells the end."""
        app = self._session.app

        def begin(_: object) -> None:
            engine.start()
            # Nothing here may keep the engine alive once another has taken its place.
            app.after_render -= begin

        engine.when_ready(app.invalidate)
        app.after_render += begin

    def _send_before_the_echo(self) -> None:
        """Store a message within its Enter. Once the line is given back, a model that is being loaded may hold this thread up for a second."""
        buffer = self._session.default_buffer
        accept = buffer.accept_handler

        def send_and_accept(typed: Buffer) -> bool:
            with suppress(UsageError):
                line = self._pastes.whole(typed.text)
                asked = _parsed(line, self.talk.world.env)
                if isinstance(asked, str) and asked.strip():
                    self._sent = line, self._send(asked)
            return accept(typed) if accept else False

        buffer.accept_handler = send_and_accept

    def _send(self, text: str) -> Generator[Event] | LlmchatError:
        """Store a message with what is attached to it. Where a file that it mentions cannot be read, it comes back to the line."""
        try:
            self.talk.attached |= {name: self.talk.read(name) for name in mentioned(text)}
            return self.talk.chat.send(text, *self.talk.take_attached())
        except LlmchatError as error:
            self._unsent = text
            return error

    def take(self, line: str) -> None:
        """Do what a line says; an error is told, with what could be done about it, and the chat goes on.

        A number as the first key of the next line takes an offer; every other key belongs to the line, and the offers are gone.
        """
        self._ways, self._unsent = [], self._unsent if self._sent else ""
        line = self._pastes.whole(line)
        self._pastes.forget()
        error = self._try(line)
        if note := self.talk.chat.note():
            self.talk.note(f"note: {note}")
        if error is None:
            return
        self._tell(error)
        # A question that failed is in the conversation already.
        self._offer(
            recovery.for_error(
                error,
                self.talk,
                lambda: self.take(line if line.lstrip().startswith("/") else "/regen"),
            )
        )

    def _offer(self, ways: list[Offer]) -> None:
        self._ways = ways
        if ways:
            labels = "  ".join(f"[{number}] {offer.label}" for number, offer in enumerate(ways, 1))
            self.talk.say(f"{labels}  [Enter] nothing")

    def choose(self, number: int) -> None:
        """Take an offer, counted from 1."""
        way, self._ways = self._ways[number - 1], []
        try:
            way.take()
        except LlmchatError as error:
            self._tell(error)

    def _withdraw_offers(self, _: object) -> None:
        self._ways = []

    def _try(self, line: str) -> LlmchatError | None:
        """Do what a line says; returns what went wrong."""
        try:
            asked = _parsed(line, self.talk.world.env)
            sent, self._sent = self._sent, None
            if isinstance(asked, Shell):
                self._run_command(asked.command)
            elif isinstance(asked, str):
                if asked.strip():
                    events = sent[1] if sent and sent[0] == line else self._send(asked)
                    if isinstance(events, LlmchatError):
                        return events
                    self._stream(events)
            else:
                command, rest = asked
                answer = command.run(self.talk, rest)
                if answer is not None:
                    self._stream(answer)
        except Leave:
            raise
        except LlmchatError as error:
            return error
        except MemoryError:
            return OutOfResources(
                "memory ran out", "a smaller window, --weights int4 or a smaller model needs less"
            )
        except OSError as error:
            return LlmchatError(str(error))
        except Exception as error:  # a mistake of ours must not take the chat along
            if self.talk.world.env.get("LLMCHAT_TRACEBACK"):
                traceback.print_exception(error)
            return LlmchatError(
                f"unexpected {type(error).__name__}: {error}",
                "this is a bug in llmchat; the chat continues",
            )
        except KeyboardInterrupt:
            self.talk.note("[stopped]")
        return None

    def _run_command(self, command: str) -> None:
        """Run a command of the person's shell, and offer its output to the model."""
        with without_echo(self.talk.world.stdin):
            output = shell.run(command, self.talk.world, self._print)
        if not output.text.endswith("\n"):
            self._print("\n")
        if output.code:
            self.talk.note(f"[exit code {output.code}]")
        if output.text.strip():
            tokens = self._count(output.text)
            size = (
                counted(len(output.text), "character")
                if tokens is None
                else counted(tokens, "token")
            )
            kept = ", the first 1 MB" if output.cut else ""
            label = f"attach the output ({size}{kept}) to the next message"
            self._offer([Offer(label, lambda: self._attach_output(f"$ {command}", output.text))])

    def _attach_output(self, name: str, text: str) -> None:
        self.talk.attached[name] = text.strip()
        self.talk.note("attached; it goes with your next message")

    def _print(self, text: str) -> None:
        stream = self.talk.world.stdout
        stream.write(fit_for(stream, text))
        stream.flush()

    def _count(self, text: str) -> int | None:
        """Tokens of a text; None while the model is not there to count them."""
        engine = self.talk.chat.engine
        if isinstance(engine, LoadingEngine) and engine.wrapped is None:
            return None
        return engine.count(text)

    def _stream(self, events: Generator[Event]) -> None:
        """Show an answer while it comes. Ctrl-C stops it and keeps what was said."""
        talk = self.talk
        dropped = talk.chat.window.dropped if talk.chat.window else 0
        number = len(answered_blocks(talk.chat.conversation.messages)) + 1
        renderer = choose_renderer(talk.world, plain=talk.plain, first=number)
        aside = Aside(talk.world, plain=talk.plain)
        answered = stopped = ended = False
        waiting = ReadingLine(talk.world.stdout, talk.world)
        with closing(events), without_echo(talk.world.stdin), told_of_interrupts(waiting.stopping):
            try:
                for event in events:
                    if isinstance(event, Prefill):
                        waiting.feed(event)
                        continue
                    waiting.clear()
                    if isinstance(event, Thought):
                        aside.feed("thinking", event.text if talk.thoughts else "")
                    elif isinstance(event, Summary):
                        aside.feed("summary", event.text)
                    else:
                        aside.finish()
                    if isinstance(event, Chunk):
                        renderer.feed(event.text)
                        answered = True
                    ended = ended or isinstance(event, Finish)
            except KeyboardInterrupt:
                stopped = True
            finally:
                waiting.clear()
                aside.finish()
                if answered:
                    renderer.finish()
        if note := status.ending_note(talk.chat, stopped=stopped, answered=answered):
            talk.note(note)
        elif ended and not answered:
            talk.note("[the model gave an empty answer; /regen asks again]")
        if note := status.dropped_note(talk.chat, dropped):
            talk.note(note)
        talk.say("")

    def _show(self, text: str) -> None:
        renderer = choose_renderer(
            self.talk.world, plain=self.talk.plain, first=self._number_of(text)
        )
        renderer.feed(text)
        renderer.finish()
        self.talk.say("")

    def _number_of(self, text: str) -> int:
        """The number of the first code block in an answer that was given before; 0 where it is none."""
        messages = self.talk.chat.conversation.messages
        answers = [
            index
            for index, one in enumerate(messages)
            if one.role == "assistant" and one.text == text
        ]
        return len(answered_blocks(messages[: answers[-1]])) + 1 if answers else 0

    def _tell(self, error: LlmchatError) -> None:
        notes.tell(self.talk.world, error, self.talk.width())

    def _edit_line(self, label: str, text: str) -> str | None:
        """A text to change in place: Enter takes it, Ctrl-C leaves it as it was."""
        if not self.talk.world.interactive:
            return None
        try:
            return str(
                PromptSession[str](f"{label}: ", key_bindings=bindings(), multiline=True).prompt(
                    default=text
                )
            )
        except (KeyboardInterrupt, EOFError):
            return None

    def _edit_text(self, text: str) -> str:
        """A text from the user's editor (VISUAL, EDITOR); as it was where nothing was saved."""
        try:
            return click.edit(text, extension=".md") or text
        except click.ClickException as error:
            raise UsageError(error.format_message(), "VISUAL or EDITOR names the editor") from error

    def _prompt_session(self) -> PromptSession[str]:
        talk = self.talk
        dull = bool(talk.world.env.get("NO_COLOR"))
        return PromptSession(
            [("bold fg:#008787", "> ")],
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "  " if wrapped else "… ",
            key_bindings=bindings(lambda: len(self._ways), self._pastes),
            vi_mode=self._vi,
            completer=CommandCompleter(talk),
            complete_style=CompleteStyle.MULTI_COLUMN,
            complete_while_typing=False,
            history=WholeLines(self._typed_before(), self._pastes),
            style=Style.from_dict({"bottom-toolbar": "noreverse dim"}),
            bottom_toolbar=lambda: status.bottom_line(talk.chat, talk.width()),
            color_depth=ColorDepth.DEPTH_1_BIT if dull else None,
            enable_open_in_editor=False,
            enable_suspend=True,
            # Without this the library would send two control sequences before it finds out that the terminal is a dumb one.
            output=PlainTextOutput(talk.world.stdout)
            if talk.world.env.get("TERM") == "dumb"
            else None,
            reserve_space_for_menu=4,
        )

    def _typed_before(self) -> FileHistory | InMemoryHistory:
        """What was typed in earlier chats, for ↑ and Ctrl-R; not where the chat is to leave no trace."""
        if self.talk.chat.history.path is None:
            return InMemoryHistory()
        path = self.talk.world.state / "typed"
        private_file(path)
        return _Typed(str(path))


class Shell(Struct, frozen=True):
    """A command for the person's own shell."""

    command: str


def _parsed(line: str, env: Mapping[str, str]) -> tuple[Command, str] | Shell | str:
    """What a line asks for: a command with its arguments, one of the shell, or the text of a message.

    A space before `!` sends it as text. `!name` that is no program, but one of our commands, is refused with a hint.
    """
    if line.startswith("!") and not line.startswith("!!"):
        command = line[1:].strip()
        if not command:
            raise UsageError(
                "`!` runs a command of your shell",
                "for example `!git diff`; a space before it sends it as text",
            )
        if registry.get(command.split()[0]) is None or which(command.split()[0], env):
            return Shell(command)
    return without_block(line) if line.lstrip().startswith('"""') else parse(line.strip())
