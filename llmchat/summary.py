"""Running summaries: what a full window can no longer hold, told again in few words by the same model."""

from collections.abc import Generator, Sequence
from contextlib import closing

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Sampling
from llmchat.presets import Preset
from llmchat.prompt import plain_text

# Greedy: a summary is no place for ideas. Long enough for a dozen facts, short enough to leave the window to the conversation.
SAMPLING = Sampling(temperature=0, repetition_penalty=1.1, max_tokens=200)
_TASK = (
    "Summarise the conversation below in a few short sentences, so that it can be continued. Keep names, numbers, decisions, what the user "
    "wants and what is still open. Write only the summary."
)
_KNOWN = "What was known before it (keep these facts):"


def summarise(
    messages: Sequence[Message], known: str, preset: Preset, engine: Engine, limit: int
) -> Generator[str, None, str]:
    """Yields the summary piece by piece and returns it whole: of `messages`, carrying on the facts of `known`.

    More messages than a window of `limit` tokens holds are taken part by part, each part with the summary of those before it.
    """
    rest = [_line(message) for message in messages]
    while rest:
        prompt, taken = _largest_part(rest, known, preset, engine, limit)
        text = ""
        with closing(
            engine.stream(preset.format.render((Message("user", prompt),)), SAMPLING)
        ) as events:
            for event in events:
                if isinstance(event, Chunk):
                    text += event.text
                    yield event.text
        known, rest = text.strip() or known, rest[taken:]
    return known


def _largest_part(
    lines: list[str], known: str, preset: Preset, engine: Engine, limit: int
) -> tuple[str, int]:
    """The task with as many lines as fit beside the answer, and how many those are. A single line that is too long is cut."""
    room = limit - SAMPLING.max_tokens
    for count in range(len(lines), 0, -1):
        prompt = _task(lines[:count], known)
        if len(engine.encode(preset.format.render((Message("user", prompt),)))) <= room:
            return prompt, count
    line = lines[0]
    while len(line) > 100:
        line = line[: len(line) * 3 // 4]
        prompt = _task([line], known)
        if len(engine.encode(preset.format.render((Message("user", prompt),)))) <= room:
            break
    return prompt, 1


def _task(lines: list[str], known: str) -> str:
    before = f"{_KNOWN}\n{known}\n\n" if known else ""
    return f"{_TASK}\n\n{before}Conversation:\n" + "\n".join(lines)


def _line(message: Message) -> str:
    return f"{message.role.capitalize()}: {plain_text(message)}"
