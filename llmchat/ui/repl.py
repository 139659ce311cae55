"""The conversation at the terminal: read a line, do a command or stream an answer, and go on whatever happens."""

from collections.abc import Callable, Generator
from contextlib import closing

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.shortcuts import CompleteStyle

from llmchat.chat import Chat, Event
from llmchat.engines import Chunk, Engine
from llmchat.errors import LlmchatError
from llmchat.presets import Preset
from llmchat.settings import World
from llmchat.ui import commands, status
from llmchat.ui.keys import CommandCompleter, bindings, without_block
from llmchat.ui.render import choose_renderer

OpenPreset = Callable[[str], tuple[Preset, Engine]]


def run(chat: Chat, world: World, *, plain: bool = False, open_preset: OpenPreset) -> int:
    """Talk until the user leaves; returns the exit code. open_preset loads another model for /model."""
    return Repl(chat, world, plain, open_preset).loop()


class Repl:
    """The state that commands see and change."""

    def __init__(self, chat: Chat, world: World, plain: bool, open_preset: OpenPreset):
        self.chat = chat
        self.world: World = world
        self.plain = plain
        self.open_preset = open_preset
        self.default_context = chat.preset.context
        self._session = self._prompt_session()
        self._interrupted = False

    def loop(self) -> int:
        self.say(f"{self.chat.engine.describe()} · /help for commands, Ctrl-D leaves")
        if self.chat.conversation.spoken:
            self.say(f"going on with {self.chat.session}: {len(self.chat.conversation.spoken)} messages")
        while True:
            try:
                line = self._session.prompt()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if self._interrupted:
                    return 0
                self._interrupted = True
                self.say("press Ctrl-C again, or Ctrl-D, to leave")
                continue
            self._interrupted = False
            try:
                self._take(line)
            except commands.Leave:
                return 0

    def say(self, line: str) -> None:
        """A line that is not the model's."""
        print(line, file=self.world.stdout, flush=True)

    def width(self) -> int:
        return self._session.output.get_size().columns

    def _take(self, line: str) -> None:
        """Do what a line says; an error is told, and the chat goes on."""
        try:
            asked = commands.parse(line.strip()) if not line.lstrip().startswith('"""') else without_block(line)
            if isinstance(asked, str):
                if asked.strip():
                    self._stream(self.chat.send(asked))
            else:
                command, rest = asked
                answer = command.run(self, rest)
                if answer is not None:
                    self._stream(answer)
        except LlmchatError as error:
            self._tell(error)
        except MemoryError:
            self._tell(LlmchatError("memory ran out", "a smaller window (/set context 1024), --weights int4 or a smaller model needs less"))
        except OSError as error:
            self._tell(LlmchatError(str(error)))
        except KeyboardInterrupt:
            self.say("[stopped]")

    def _stream(self, events: Generator[Event]) -> None:
        """Show an answer while it comes. Ctrl-C stops it and keeps what was said."""
        dropped = self.chat.window.dropped if self.chat.window else 0
        renderer = choose_renderer(self.world, plain=self.plain)
        stopped = False
        with closing(events):
            try:
                for event in events:
                    if isinstance(event, Chunk):
                        renderer.feed(event.text)
            except KeyboardInterrupt:
                stopped = True
            finally:
                renderer.finish()
        if stopped:
            self.say("[stopped]")
        elif self.chat.finish and self.chat.finish.reason == "length":
            self.say("[cut: the answer reached its longest length; /set max_tokens or a wider window allows more]")
        if note := status.dropped_note(self.chat, dropped):
            self.say(note)
        self.say("")

    def _tell(self, error: LlmchatError) -> None:
        self.say(f"error: {error.message}")
        if error.hint:
            self.say(f"hint: {error.hint}")

    def _prompt_session(self) -> PromptSession[str]:
        dull = bool(self.world.env.get("NO_COLOR"))
        return PromptSession(
            HTML("<b>&gt; </b>"),
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "  " if wrapped else "… ",
            key_bindings=bindings(),
            completer=CommandCompleter(self),
            complete_style=CompleteStyle.MULTI_COLUMN,
            complete_while_typing=False,
            history=self._typed_before(),
            bottom_toolbar=lambda: status.bottom_line(self.chat, self.width()),
            color_depth=ColorDepth.DEPTH_1_BIT if dull else None,
            enable_open_in_editor=False,
            reserve_space_for_menu=4,
        )

    def _typed_before(self) -> FileHistory | InMemoryHistory:
        """What was typed in earlier chats, for ↑ and Ctrl-R; not where the chat is to leave no trace."""
        if self.chat.history.path is None:
            return InMemoryHistory()
        self.world.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.world.state / "typed"
        path.touch(mode=0o600)
        return FileHistory(str(path))
