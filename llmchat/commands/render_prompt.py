"""Renders a list of messages for `llmchat prompt`, trimmed as in a chat."""

import msgspec

from llmchat import thinking
from llmchat.conversation import Conversation, Message
from llmchat.engines.checkpoint_files import context_of
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import ModelNotFound, UsageError
from llmchat.models.loading import tokenizer
from llmchat.models.locate import locate
from llmchat.output.terminal_text import fit_for, harmless
from llmchat.parse_guard import reason
from llmchat.presets import Preset
from llmchat.prompt import Prompt
from llmchat.roles import Role
from llmchat.settings import World
from llmchat.window import Window, fit


class _JsonMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message in OpenAI's format, optionally with material."""

    role: str
    content: str
    input: str = ""


def run(
    world: World, preset: Preset, file: str, *, ids: bool, trim: bool, role: Role | None = None
) -> None:
    """Print the prompt. role: what the last question is asked in.

    A preset with a format of its own needs no download, but then nothing can be trimmed, which is
    noted on stderr.
    """
    conversation = read_messages(world, file)
    if role:
        conversation = role.ask_last(conversation)
    if preset.system and not conversation.system:
        conversation = Conversation((Message("system", preset.system), *conversation.messages))
    try:
        model = locate(preset, world)
    except ModelNotFound:
        if ids or trim or not preset.format.parts:
            raise
        print(
            f"note: {preset.name} is not pulled, so tokens are not counted and nothing is trimmed",
            file=world.stderr,
        )
        return _write(world, preset.format.render(_system_first(conversation)).text)
    if model.base is None:
        raise UsageError(f"the engine `{preset.engine}` has no tokenizer", "leave --engine out")
    tokens = tokenizer(model)
    told, sampling, conversation = thinking.applied(model.preset, preset.sampling, conversation)
    window, prompt = fit(
        conversation, told, tokens, context_of(model.base.path), sampling.max_tokens
    )
    _print_window(world, window)
    _write(world, _ids(tokens, prompt) if ids else prompt.text)


def read_messages(world: World, file: str) -> Conversation:
    """Messages from a JSON file or stdin: a list, or an object with the list under `messages`."""
    text = world.read_text(file)
    try:
        value = msgspec.json.decode(text)
        found = msgspec.convert(
            value["messages"] if isinstance(value, dict) and "messages" in value else value,
            list[_JsonMessage],
        )
        return Conversation(
            tuple(
                msgspec.convert(
                    {"role": one.role, "text": one.content, "input": one.input}, Message
                )
                for one in found
            )
        )
    except (ValueError, RecursionError) as error:
        name = "stdin" if file == "-" else file
        raise UsageError(
            f"{name} is not a JSON list of messages: {reason(error)}",
            '[{"role": "user", "content": "…"}]',
        ) from error


def _system_first(conversation: Conversation) -> tuple[Message, ...]:
    return (
        *((Message("system", conversation.system),) if conversation.system else ()),
        *conversation.spoken,
    )


def _print_window(world: World, window: Window) -> None:
    print(
        f"{window.tokens:,} tokens of {window.limit:,}, {window.reserve:,} kept for the answer",
        file=world.stderr,
    )
    for entry in window.ledger:
        if entry.fate not in ("sent", "attached"):
            line = (
                f"{entry.fate}: message {entry.number}, {entry.role}, {entry.tokens:,} tokens:"
                f" {entry.start}"
            )
            print(fit_for(world.stderr, line), file=world.stderr)


def _ids(tokens: Tokenizer, prompt: Prompt) -> str:
    return " ".join(map(str, tokens.encode(prompt)))


def _write(world: World, text: str) -> None:
    """Print the text alone; on a terminal with a newline before the shell's prompt."""
    world.stdout.write(f"{harmless(text)}\n" if world.stdout.isatty() else text)
    world.stdout.flush()
