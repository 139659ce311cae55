"""Answer a question from the web with any model: `/web QUESTION` and `--web`.

The program searches and reads; the model is given what was found as the question's material.
"""

from threading import Event

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Message, material
from llmchat.tools.web.gather import Found, compose, gather
from llmchat.tools.web.settings import WebSettings

# More is slow to read on a CPU, and small models lose the thread.
_MOST_CHARACTERS = 12_000
# The part of the window that sources may fill; the rest is for the chat and the answer.
_PART = 0.5
_CHARACTERS_PER_TOKEN = 4


def with_web(chat: Chat, question: Message, settings: WebSettings) -> Message:
    """The question with sources before its other material, numbered in `chat.sources`.

    Raises ToolError if nothing is found or the web cannot be reached.
    """
    chat.sources.take()
    found = gather(question.text or question.input, settings, Event(), chat.sources)
    pieces = _fitted(chat, question.text, found)
    text, files = material([*pieces, *(one for one in question.materials if one[1])])
    return replace(question, input=text, files=files)


def _fitted(chat: Chat, question: str, found: list[Found]) -> list[tuple[str, str]]:
    """The sources, shortened until they fit into their part of the window."""
    context = chat.engine.context
    most = int(min(chat.preset.context.tokens or context, context) * _PART)
    budget = min(_MOST_CHARACTERS, most * _CHARACTERS_PER_TOKEN)
    while True:
        pieces = compose(question, found, budget)
        tokens = chat.engine.count(material(pieces)[0])
        if tokens <= most or budget < 600:
            return pieces
        budget = min(budget * 9 // 10, int(budget * most / tokens))
