"""The slash commands of the REPL: one decorated function each. /help and completion are made from the same table.

A command is given the REPL's state and the rest of its line; it prints, changes the chat, or returns an answer to be streamed.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmchat.chat import Event
from llmchat.engines import Sampling
from llmchat.errors import UsageError, did_you_mean
from llmchat.presets import ContextPolicy, amend, names
from llmchat.ui import status
from llmchat.window import fit

if TYPE_CHECKING:
    from llmchat.ui.repl import Repl

Answer = Generator[Event] | None
Run = Callable[["Repl", str], Answer]
Complete = Callable[["Repl"], Iterable[str]]


class Leave(Exception):
    """The user wants to go."""


@dataclass(frozen=True)
class Command:
    name: str
    arguments: str
    help: str
    run: Run
    aliases: tuple[str, ...] = ()
    complete: Complete | None = None


class Registry:
    """Commands by name and alias."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def command(
        self, name: str, arguments: str, help: str, *, aliases: tuple[str, ...] = (), complete: Complete | None = None
    ) -> Callable[[Run], Run]:
        """Register the function below as a command."""

        def register(run: Run) -> Run:
            self._commands[name] = Command(name, arguments, help, run, aliases, complete)
            return run

        return register

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def names(self) -> list[str]:
        return [name for command in self._commands.values() for name in (command.name, *command.aliases)]

    def get(self, name: str) -> Command | None:
        return next((command for command in self._commands.values() if name == command.name or name in command.aliases), None)


registry = Registry()
command = registry.command
_SAMPLING = [name for name in Sampling.__struct_fields__ if name != "stops"]
# What /set calls it → the field of the context policy.
_CONTEXT = {"context": "tokens", "policy": "policy", "turns": "turns", "low_water": "low_water"}


def parse(line: str) -> tuple[Command, str] | str:
    """A command with its arguments, or the text to send. Raises UsageError for what looks like a command and is none.

    `//x` sends /x, and a path such as /etc/hosts is text.
    """
    if line.startswith("//"):
        return line[1:]
    foreign = re.match(r"(?:!!?|\.)(\w+)\b", line)
    if foreign and registry.get(foreign[1]) and len(line.split()) <= 2:
        raise UsageError(f"commands begin with a slash: did you mean /{foreign[1]}?")
    match = re.match(r"/([\w?]+)(?:\s+(.*))?$", line, re.S)
    if not match:
        return line
    found = registry.get(match[1].lower())
    if found is None:
        raise UsageError(
            f"there is no command /{match[1]}",
            did_you_mean(match[1], registry.names()) or "/help lists them; //text sends a text that begins with a slash",
        )
    return found, (match[2] or "").strip()


@command("help", "[command]", "This list, or what a command does.", aliases=("?",), complete=lambda repl: registry.names())
def show_help(repl: "Repl", rest: str) -> Answer:
    shown = [registry.get(rest.lstrip("/"))] if rest else list(registry)
    for one in shown:
        if one is None:
            raise UsageError(f"there is no command /{rest}", did_you_mean(rest, registry.names()))
        also = f" (also {', '.join('/' + alias for alias in one.aliases)})" if one.aliases else ""
        repl.say(f"/{one.name} {one.arguments}".ljust(24) + one.help + also)
    if not rest:
        repl.say('\nEnter sends; Alt+Enter or Ctrl-J makes a new line; """ opens a block. Ctrl-C stops an answer, Ctrl-D leaves.')
    return None


@command("exit", "", "Leave; the chat is saved.", aliases=("quit", "bye"))
def leave(repl: "Repl", rest: str) -> Answer:
    raise Leave


@command("new", "", "Begin a new chat with the same model and system text.", aliases=("clear", "reset"))
def new(repl: "Repl", rest: str) -> Answer:
    repl.chat.restart()
    repl.say("a new chat")
    return None


@command("regen", "", "Answer the last question again; the old answer stays in the history.", aliases=("retry", "regenerate"))
def regenerate(repl: "Repl", rest: str) -> Answer:
    if repl.chat.sampling.temperature == 0:
        repl.say("temperature 0 gives the same answer again; /set temperature 0.7 varies it")
    return repl.chat.regenerate()


@command("undo", "[n]", "Take back the last question and its answer, or the last n.")
def undo(repl: "Repl", rest: str) -> Answer:
    if (rest and not rest.isdecimal()) or rest == "0":
        raise UsageError(f"/undo takes a number of turns, not `{rest}`")
    repl.chat.undo(int(rest or 1))
    last = next((message.text for message in reversed(repl.chat.conversation.messages) if message.role == "user"), None)
    repl.say(f"back to: {last}" if last else "back to the beginning")
    return None


@command("system", "[text]", "Show or set the system text.")
def system(repl: "Repl", rest: str) -> Answer:
    if rest:
        repl.chat.instruct(rest)
    repl.say(repl.chat.conversation.system or "no system text; the model's own default holds, if it has one")
    return None


@command(
    "set",
    "[name [value]]",
    "Show settings, or change one; `default` takes the preset's value back.",
    complete=lambda repl: [*_SAMPLING, *_CONTEXT],
)
def set_value(repl: "Repl", rest: str) -> Answer:
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    values = settings_of(repl)
    if name and name not in values:
        raise UsageError(f"there is no setting `{name}`", did_you_mean(name, list(values)) or f"there are {', '.join(values)}")
    if value:
        _change(repl, name, value)
        values = settings_of(repl)
    for shown in [name] if name else values:
        repl.say(f"{shown:20} {'none' if values[shown] is None else values[shown]}")
    return None


@command("model", "[name]", "Show the model, or go on with another one.", complete=lambda repl: names(repl.world.own_presets))
def model(repl: "Repl", rest: str) -> Answer:
    if rest:
        preset, engine = repl.open_preset(rest)
        repl.chat.engine.close()
        repl.chat.preset, repl.chat.engine, repl.chat.sampling = preset, engine, preset.sampling
        repl.chat.window = repl.chat.finish = None
    repl.say(repl.chat.engine.describe())
    return None


@command("stats", "", "Tokens and times of the last answer.")
def stats(repl: "Repl", rest: str) -> Answer:
    finish = repl.chat.finish
    if finish is None:
        raise UsageError("there is no answer yet")
    repl.say(f"prompt               {finish.prompt_tokens:,} tokens, {finish.cached_tokens:,} of them from the cache")
    repl.say(f"answer               {finish.reply_tokens:,} tokens, ended by {finish.reason}")
    repl.say(f"first token          {finish.prefill_s:.2f} s")
    repl.say(f"speed                {finish.tokens_per_second:.1f} tokens/s")
    repl.say(f"seed                 {finish.seed}")
    return None


@command("context", "", "What the model is given of this chat: each message with its tokens, sent or dropped.", aliases=("tokens",))
def context(repl: "Repl", rest: str) -> Answer:
    chat = repl.chat
    if not chat.conversation.spoken:
        raise UsageError("nothing was said yet")
    window = fit(chat.conversation, chat.preset, chat.engine, chat.engine.context, chat.sampling.max_tokens)
    for number, entry in enumerate(window.ledger, 1):
        repl.say(f"{number:4}  {entry.role:9} {entry.tokens:7,}  {entry.fate:10}  {status.cut(entry.start, max(10, repl.width() - 38))}")
    repl.say(
        f"{window.tokens:,} of {window.limit:,} tokens used, {window.reserve:,} kept for the answer; policy {chat.preset.context.policy}"
    )
    return None


@command("plain", "", "Markdown on or off.")
def plain(repl: "Repl", rest: str) -> Answer:
    repl.plain = not repl.plain
    repl.say("plain text" if repl.plain else "Markdown")
    return None


def settings_of(repl: "Repl") -> dict[str, object]:
    policy = repl.chat.preset.context
    return {name: getattr(repl.chat.sampling, name) for name in _SAMPLING} | {
        name: getattr(policy, field) for name, field in _CONTEXT.items()
    }


def _change(repl: "Repl", name: str, value: str) -> None:
    chat = repl.chat
    if name in _CONTEXT:
        field = _CONTEXT[name]
        default = getattr(repl.default_context, field)
        policy: ContextPolicy = (
            replace(chat.preset.context, **{field: default}) if value == "default" else amend(chat.preset.context, {field: value})
        )
        chat.preset = replace(chat.preset, context=policy)
    elif value == "default":
        chat.sampling = replace(chat.sampling, **{name: getattr(chat.preset.sampling, name)})
    else:
        chat.sampling = amend(chat.sampling, {name: value})
