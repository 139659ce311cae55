"""Parses request bodies: JSON into the request's type. Large bodies are parsed in a thread, one
at a time, because parsing megabytes in the event loop would stall every stream.

FastAPI always parses in the event loop; this module replaces that step for its routes.
"""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from llmchat.server.compatibility import MAX_NESTING, check_nesting
from llmchat.server.prompt_workers import PromptWorkers

# Parsing a body of up to this many bytes takes less time than starting a thread.
MAX_INLINE = 32_768


def decode_body(body: bytes, body_type: type[BaseModel]) -> BaseModel:
    """Raises JSONDecodeError, or RequestValidationError with the deepest problem: if a value has
    several allowed types, that one belongs to the type that the client meant."""
    value = _parse_json(body)
    try:
        return body_type.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        deepest = max(problems, key=lambda problem: len(problem["loc"]))
        located = {**deepest, "loc": ("body", *deepest["loc"]), "input": None}
        raise RequestValidationError([located]) from None


def _parse_json(body: bytes) -> Any:
    """Raises JSONDecodeError, or HTTPException for JSON that is nested too deep."""
    try:
        value = json.loads(body)
        # Few bodies have enough brackets to be nested too deep.
        if body.count(b"[") + body.count(b"{") > MAX_NESTING:
            check_nesting(value)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"cannot parse the body as JSON: {error}") from None
    return value


class _OffloadedRequest(Request):
    """A request whose `json()` returns a `body_type`, parsed in a thread if the body is large.

    problem: the validation error, if there was one
    """

    workers: PromptWorkers
    body_type: type[BaseModel]
    problem: RequestValidationError | None = None

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= MAX_INLINE:
            return _parse_json(body)
        client = self.state.client
        try:
            return await self.workers.run(
                client, math.inf, lambda: decode_body(body, self.body_type)
            )
        except RequestValidationError as error:
            # If it were raised here, FastAPI would report that the JSON cannot be parsed.
            self.problem = error
            return None


def route_class(workers: PromptWorkers) -> type[APIRoute]:
    """A class of routes that parse large bodies with these workers."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()
            body_type: Any = self.body_field and self.body_field.field_info.annotation
            if not (isinstance(body_type, type) and issubclass(body_type, BaseModel)):
                return handler

            async def handle(request: Request) -> Response:
                offloaded = _OffloadedRequest(request.scope, request.receive)
                offloaded.workers, offloaded.body_type = workers, body_type
                try:
                    return await handler(offloaded)
                except RequestValidationError as error:
                    raise (offloaded.problem or error) from None

            return handle

    return Route
