"""llmchat: chat with language models on your own machine, in the terminal and from Python.

    import llmchat

    chat = llmchat.open("smollm2")
    for piece in chat.say("Tell me a story."):
        print(piece, end="", flush=True)

docs/python.md describes it. Importing this module imports nothing else.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llmchat.acting import ToolStarted as ToolStarted
    from llmchat.answer_report import CitedSource as CitedSource
    from llmchat.answer_report import SentWindow as SentWindow
    from llmchat.answer_report import ToolUse as ToolUse
    from llmchat.answer_report import Usage as Usage
    from llmchat.api.answer import Answer as Answer
    from llmchat.api.answer import InvalidAnswer as InvalidAnswer
    from llmchat.api.answer import ToolResult as ToolResult
    from llmchat.api.async_chat import AsyncChat as AsyncChat
    from llmchat.api.async_chat import open_async as open_async
    from llmchat.api.batches import Batch as Batch
    from llmchat.api.batches import BatchAnswer as BatchAnswer
    from llmchat.api.batches import batch as batch
    from llmchat.api.chat import Chat as Chat
    from llmchat.api.opening import open as open
    from llmchat.api.opening import sessions as sessions
    from llmchat.api.plotting import Plot as Plot
    from llmchat.api.plotting import plot as plot
    from llmchat.api.pulling import Plan as Plan
    from llmchat.api.pulling import pull as pull
    from llmchat.calls import Call as Call
    from llmchat.conversation import Message as Message
    from llmchat.engines import Chunk as Chunk
    from llmchat.engines import Finish as Finish
    from llmchat.engines import Prefill as Prefill
    from llmchat.errors import LlmchatError as LlmchatError
    from llmchat.errors import NotPulled as NotPulled
    from llmchat.history.types import Session as Session
    from llmchat.reply_parser import Thinking as Thinking
    from llmchat.settings.sampling import Sampling as Sampling
    from llmchat.window import Window as Window

# Name → the module that has it.
_PUBLIC = {
    "Answer": "api.answer",
    "AsyncChat": "api.async_chat",
    "Batch": "api.batches",
    "BatchAnswer": "api.batches",
    "Call": "calls",
    "Chat": "api.chat",
    "Chunk": "engines",
    "CitedSource": "answer_report",
    "Finish": "engines",
    "InvalidAnswer": "api.answer",
    "LlmchatError": "errors",
    "Message": "conversation",
    "NotPulled": "errors",
    "Plan": "api.pulling",
    "Plot": "api.plotting",
    "Prefill": "engines",
    "Sampling": "settings.sampling",
    "SentWindow": "answer_report",
    "Session": "history.types",
    "Thinking": "reply_parser",
    "ToolResult": "api.answer",
    "ToolStarted": "acting",
    "ToolUse": "answer_report",
    "Usage": "answer_report",
    "Window": "window",
    "batch": "api.batches",
    "open": "api.opening",
    "open_async": "api.async_chat",
    "plot": "api.plotting",
    "pull": "api.pulling",
    "sessions": "api.opening",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module `llmchat` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(f"llmchat.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
