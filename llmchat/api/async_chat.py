"""The async API: a chat in its own thread, and its answers as async iterators."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from llmchat.answer_report import SentWindow
from llmchat.api.answer import Answer
from llmchat.api.answering import Material
from llmchat.api.chat import Chat
from llmchat.api.opening import open as open_chat
from llmchat.api.stream import Running
from llmchat.chat import Event
from llmchat.conversation import Message

T = TypeVar("T")
S = TypeVar("S")
E = TypeVar("E")
R = TypeVar("R")
_END: Any = object()


class _Thread:
    """The single thread in which all steps of a chat run."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "llmchat")

    async def run(self, work: Callable[..., R], *arguments: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def end(self) -> None:
        self._executor.shutdown(wait=False)


class AsyncRunning(Generic[E], AsyncIterator[E]):
    """The events or the pieces of one answer, see `Running`. `aclose`, or leaving an `async with`
    block early, cancels it."""

    def __init__(self, running: Running[E], thread: _Thread):
        self._running, self._thread = running, thread

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        item: Any = await self._thread.run(next, self._running, _END)
        if item is _END:
            raise StopAsyncIteration
        found: E = item
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the answer, unless it has ended."""
        await self._thread.run(self._running.close)

    @property
    def answer(self) -> Answer[Any]:
        """The whole answer. Raises UsageError before its end."""
        return self._running.answer


class AsyncChat(Generic[T]):
    """A chat whose methods are coroutines; see `Chat`. `llmchat.open_async` makes one.

    The model runs in a thread, so the event loop is not blocked. A tool that is a coroutine runs in
    the event loop.
    """

    def __init__(self, chat: Chat[T], thread: _Thread):
        self._chat, self._thread = chat, thread

    def say(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> AsyncRunning[str]:
        """Ask, and yield the text of the answer while it is generated; see `Chat.say`."""
        self._use_loop()
        running = self._chat.say(text, input=input, files=files, schema=schema, **settings)
        return AsyncRunning(running, self._thread)

    def stream(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> AsyncRunning[Event]:
        """Ask, and yield the events of the answer; see `Chat.stream`."""
        self._use_loop()
        running = self._chat.stream(text, input=input, files=files, schema=schema, **settings)
        return AsyncRunning(running, self._thread)

    @overload
    async def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: None = None, **settings: Any,
    ) -> Answer[T]: ...  # fmt: skip
    @overload
    async def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: type[S], **settings: Any,
    ) -> Answer[S]: ...  # fmt: skip
    @overload
    async def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: Any, **settings: Any,
    ) -> Answer[Any]: ...  # fmt: skip
    async def ask(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> Answer[Any]:
        """Ask, and return the whole answer. Cancelling the task cancels the answer."""
        events = self.stream(text, input=input, files=files, schema=schema, **settings)
        return await _whole(events)

    async def again(self, hint: str = "", **settings: Any) -> Answer[T]:
        """Answer the last question again; see `Chat.again`."""
        self._use_loop()
        return await _whole(
            AsyncRunning(self._chat.answering_again(hint, **settings), self._thread)
        )

    @property
    def answer(self) -> Answer[Any] | None:
        """The last answer; None before the first one."""
        return self._chat.answer

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, from first to last."""
        return self._chat.messages

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._chat.model

    @property
    def session(self) -> str | None:
        """Id of the saved session; None if the chat is not saved, or empty."""
        return self._chat.session

    async def window(self) -> SentWindow:
        """The messages that the next question will be sent with, and those left out."""
        return await self._thread.run(lambda: self._chat.window)

    async def instruct(self, system: str) -> None:
        """Set the system text for the following answers."""
        await self._thread.run(self._chat.instruct, system)

    async def set(self, **settings: Any) -> None:
        """Change settings for the following answers, such as `temperature=0`."""
        await self._thread.run(partial(self._chat.set, **settings))

    async def undo(self, turns: int = 1) -> None:
        """Remove the last questions and their answers; see `Chat.undo`."""
        await self._thread.run(self._chat.undo, turns)

    async def save(self, title: str = "") -> str:
        """Keep the chat as a session; see `Chat.save`."""
        return await self._thread.run(self._chat.save, title)

    async def new(self) -> "AsyncChat[T]":
        """An empty chat with the same model, tools and settings."""
        return AsyncChat(await self._thread.run(self._chat.new), _Thread())

    async def close(self) -> None:
        """End the chat; see `Chat.close`."""
        await self._thread.run(self._chat.close)
        self._thread.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._chat).replace("Chat", "AsyncChat", 1)

    def _repr_html_(self) -> str:
        return self._chat._repr_html_()

    def _use_loop(self) -> None:
        """Tools that are coroutines run in the loop that asks."""
        self._chat.use_loop(asyncio.get_running_loop())


class OpeningAsync(Generic[T]):
    """A chat that is being opened: `await` it, or use it as an `async with` block."""

    def __init__(self, open_chat: Callable[[], Chat[T]]):
        self._open = open_chat
        self._chat: AsyncChat[T] | None = None

    def __await__(self) -> Generator[Any, None, AsyncChat[T]]:
        return self._opened().__await__()

    async def __aenter__(self) -> AsyncChat[T]:
        self._chat = await self._opened()
        return self._chat

    async def __aexit__(self, *_: object) -> None:
        if self._chat is not None:
            await self._chat.close()

    async def _opened(self) -> AsyncChat[T]:
        thread = _Thread()
        try:
            return AsyncChat(await thread.run(self._open), thread)
        except BaseException:
            thread.end()
            raise


@overload
def open_async(model: str | None = None, *, schema: type[T], **options: Any) -> OpeningAsync[T]: ...
@overload
def open_async(
    model: str | None = None, *, schema: None = None, **options: Any
) -> OpeningAsync[None]: ...
@overload
def open_async(model: str | None = None, *, schema: Any, **options: Any) -> OpeningAsync[Any]: ...
def open_async(
    model: str | None = None, *, schema: Any = None, **options: Any
) -> OpeningAsync[Any]:
    """Load a model in a thread, and begin a chat. The arguments are those of `llmchat.open`."""
    return OpeningAsync(partial(open_chat, model, schema=schema, **options))


async def _whole(events: AsyncRunning[Event]) -> Answer[Any]:
    async with events:
        async for _ in events:
            pass
    return events.answer
