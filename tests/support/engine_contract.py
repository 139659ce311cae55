"""The prompt that every engine is tested with, and its whole answer."""

from contextlib import closing

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Finish, Sampling
from llmchat.prompt import Prompt

GREEDY = Sampling(temperature=0, max_tokens=24)


STORY = (
    "Once upon a time, a quick brown fox met a lazy dog by the river."
    " 🦊 The fox said to the dog: 🐕 let us"
)


def prompt(text: str = STORY, **fields: object) -> Prompt:
    """A text that a person wrote, as a format without words of its own would write it."""
    return Prompt(text, (Message("user", text),), quoted=((0, len(text)),), **fields)  # type: ignore[arg-type]


def answer(engine: Engine, asked: Prompt, sampling: Sampling = GREEDY) -> tuple[list[str], Finish]:
    """Return the chunks and the finish; assert that there is one finish and that it comes last."""
    with closing(engine.stream(asked, sampling)) as stream:
        *chunks, finish = stream
    assert isinstance(finish, Finish) and all(isinstance(chunk, Chunk) for chunk in chunks)
    texts = [chunk.text for chunk in chunks if isinstance(chunk, Chunk)]
    for text in texts:
        text.encode()  # whole characters: half a surrogate pair could not be
    assert all(texts), "a chunk shows something"
    return texts, finish
