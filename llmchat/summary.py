"""Running summaries: the same model summarises the messages that no longer fit into its window."""

from collections.abc import Generator, Sequence
from contextlib import closing

from msgspec import Struct

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Sampling
from llmchat.presets import Preset
from llmchat.prompt import Prompt, plain_text

# Greedy, because a summary must not invent anything. Long enough for a dozen facts, short enough to
# leave the window to the conversation.
SAMPLING = Sampling(temperature=0, repetition_penalty=1.1, max_tokens=200)
_TASK = (
    "Summarise the conversation below in a few short sentences, so that it can be continued. "
    "Keep names, numbers, decisions, what the user wants and what is still open. "
    "Write only the summary."
)
_KNOWN = "What was known before it (keep these facts):"
_SHORTEST_LINE = 100


class Summary(Struct, frozen=True):
    """A piece of the summary that replaces messages which no longer fit."""

    text: str


def summarise(
    messages: Sequence[Message], known: str, preset: Preset, engine: Engine, limit: int
) -> Generator[Summary, None, str]:
    """Yield a summary of `messages` piece by piece, and return all of it.

    known: an earlier summary whose facts are kept. limit: tokens of the window; messages that do
    not fit into it together are summarised in several steps, each with the summary so far.
    """
    rest = [_line(message) for message in messages]
    while rest:
        task, count = _largest_task(rest, known, preset, engine, limit)
        text = ""
        with closing(engine.stream(_prompt(preset, task), SAMPLING)) as events:
            for event in events:
                if isinstance(event, Chunk):
                    text += event.text
                    yield Summary(event.text)
        known, rest = text.strip() or known, rest[count:]
    return known


def _largest_task(
    lines: list[str], known: str, preset: Preset, engine: Engine, limit: int
) -> tuple[str, int]:
    """The task with as many lines as fit together with the answer, and their number.

    A single line that is too long is cut.
    """
    room = limit - SAMPLING.max_tokens

    def fits(task: str) -> bool:
        return len(engine.encode(_prompt(preset, task))) <= room

    for count in range(len(lines), 0, -1):
        task = _task(lines[:count], known)
        if fits(task):
            return task, count
    line = lines[0]
    while len(line) > _SHORTEST_LINE:
        line = line[: len(line) * 3 // 4]
        task = _task([line], known)
        if fits(task):
            break
    return task, 1


def _prompt(preset: Preset, task: str) -> Prompt:
    return preset.format.render((Message("user", task),))


def _task(lines: list[str], known: str) -> str:
    before = f"{_KNOWN}\n{known}\n\n" if known else ""
    return f"{_TASK}\n\n{before}Conversation:\n" + "\n".join(lines)


def _line(message: Message) -> str:
    return f"{message.role.capitalize()}: {plain_text(message)}"
