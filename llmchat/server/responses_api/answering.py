"""Answers a request: its events in order, and the stored response at the end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from llmchat.engines import Token
from llmchat.errors import ContextOverflow, LlmchatError
from llmchat.server.answers import Client, answers, trims
from llmchat.server.api import ChatRequest
from llmchat.server.choice import Choice
from llmchat.server.errors import BadRequest, Forbidden, Refusal, describe_error
from llmchat.server.openai_format import chat_logprobs, encode_json
from llmchat.server.responses_api import response_body
from llmchat.server.responses_api.checking import check
from llmchat.server.responses_api.items import own_items
from llmchat.server.responses_api.output import Event, Output
from llmchat.server.responses_api.schema import ITEMS, ItemReference, ResponseRequest
from llmchat.server.responses_api.store import Item, StoredResponse
from llmchat.server.responses_api.translation import LOGPROBS, called_tools, to_chat
from llmchat.server.state import ServerState, new_id
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse, sse_event

log = logging.getLogger("llmchat.server")


class Asker(Struct, frozen=True):
    """Who asks. user: the user whose stored responses a request may use; raises Forbidden, and
    reads files."""

    client: Client
    user: Callable[[], str]


class Question(Struct, frozen=True):
    """A request with its conversation. user: None if the response will not be stored. asked: the
    index of the first item of the request itself."""

    chat: ChatRequest
    user: str | None
    items: list[Item]
    asked: int


def respond(state: ServerState, request: ResponseRequest, asker: Asker) -> AnswerResponse:
    check(request)
    answer = _Answer(state, request, asker)
    if request.stream:
        return AnswerResponse(answer.streamed(), SSE, answer.error_event)
    return AnswerResponse(answer.whole(), JSON)


class _Answer:
    """The answer to one request while it is generated. body: once it has begun."""

    def __init__(self, state: ServerState, request: ResponseRequest, asker: Asker):
        self._state, self._request, self._asker = state, request, asker
        self._output = Output(called_tools(request))
        self._body: dict[str, Any] | None = None
        self._tokens: list[Token] = []
        self._number = 0

    async def whole(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._events()) as events:
            async for event in events:
                last = event
        yield encode_json(last["response"])

    async def streamed(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._events()) as events:
            async for event in events:
                yield self._sse(event)

    def error_event(self, error: Exception) -> bytes:
        """The event for an error after the first event."""
        assert self._body is not None
        reason = describe_error(error)[2]["error"]
        body = response_body.failed(self._body, self._output.items, reason)
        return self._sse({"type": "response.failed", "response": body})

    def _sse(self, event: Event) -> bytes:
        numbered = {**event, "sequence_number": self._number}
        self._number += 1
        return sse_event(numbered, event["type"])

    async def _events(self) -> AsyncGenerator[Event]:
        try:
            question = await asyncio.to_thread(self._question)
            client = self._asker.client
            async with aclosing(answers(self._state, question.chat, client, fill=True)) as pieces:
                async for choices, _, delta, tokens in pieces:
                    for event in self._piece(question, choices[0], delta, tokens):
                        yield event
            for event in await self._end(question, choices[0]):
                yield event
        except LlmchatError as error:
            raise _of_fields(error) from error

    def _question(self) -> Question:
        """The request with the conversation that it continues. Reads files, and takes time for a
        long conversation."""
        request, store = self._request, self._state.responses
        user = self._user()
        earlier: list[Item] = []
        if request.previous_response_id is not None:
            previous = store.get(user or "", request.previous_response_id)
            if previous is None:
                raise PreviousNotFound(request.previous_response_id)
            earlier = previous.items
        items = [*earlier, *own_items(request, store, user)]
        chat = to_chat(request, ITEMS.validate_python(items))
        return Question(chat, user if request.store is not False else None, items, len(earlier))

    def _user(self) -> str | None:
        """The user who asks, if the request needs stored responses or is stored itself. A client
        that cannot be identified gets an answer that is not stored."""
        request = self._request
        refers = request.previous_response_id is not None or (
            isinstance(request.input, list)
            and any(isinstance(item, ItemReference) for item in request.input)
        )
        if request.store is False and not refers:
            return None
        try:
            return self._asker.user()
        except Forbidden:
            if refers or request.store:
                raise
            return None

    def _piece(
        self,
        question: Question,
        choice: Choice,
        delta: dict[str, Any],
        tokens: Sequence[Token],
    ) -> list[Event]:
        events = [] if self._body else self._begin(question, choice)
        self._tokens = [] if "reasoning_content" in delta else [*self._tokens, *tokens]
        logprobs: list[dict[str, Any]] = []
        if "content" in delta and LOGPROBS in (self._request.include or ()):
            logprobs, self._tokens = chat_logprobs(self._tokens)["content"], []
        return [*events, *self._output.feed(delta, logprobs)]

    def _begin(self, question: Question, choice: Choice) -> list[Event]:
        self._body = response_body.begun(
            self._request,
            choice.generation.sampling,
            new_id("resp").replace("-", "_"),
            int(self._state.now()),
            stored=question.user is not None,
            trims=trims(self._state, question.chat),
        )
        kinds = ("response.created", "response.in_progress")
        return [{"type": kind, "response": self._body} for kind in kinds]

    async def _end(self, question: Question, choice: Choice) -> list[Event]:
        """Store the response; the events that are left."""
        assert self._body is not None
        now, output = int(self._state.now()), self._output
        cut = choice.finish is not None and choice.finish.reason == "length"
        status = "incomplete" if cut else "completed"
        events = output.finish(status)
        self._body = response_body.ended(self._body, output.items, choice, now)
        if question.user is not None:
            stored = await asyncio.to_thread(self._store, question.user, question)
            self._body["store"] = stored
        return [*events, {"type": f"response.{status}", "response": self._body}]

    def _store(self, user: str, question: Question) -> bool:
        """Whether the response is stored: an answer is not lost because the disk is full."""
        assert self._body is not None
        items = [*question.items, *self._output.items]
        stored = StoredResponse(self._body, items, question.asked, len(question.items))
        try:
            return self._state.responses.put(user, stored)
        except LlmchatError as error:
            log.error("a response is not stored: %s", error.message)
            return False


class PreviousNotFound(BadRequest):
    def __init__(self, id: str):
        super().__init__(
            f"there is no stored response `{id[:64]}`",
            param="previous_response_id",
            code="previous_response_not_found",
        )


# The fields of this API that the parts of a ChatRequest come from.
_FIELDS = {
    "messages": "input",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
}


def _of_fields(error: LlmchatError) -> LlmchatError:
    """The error with the names that the fields have in this API."""
    if isinstance(error, ContextOverflow):
        return BadRequest(error.message, param="input", code="context_length_exceeded")
    if isinstance(error, Refusal) and error.param:
        first = error.param.partition(".")[0]
        error.param = _FIELDS.get(first, "tools" if first == "tools" else error.param)
    return error
